"""What a user asks for, one file each: the command line and Python both call these."""
