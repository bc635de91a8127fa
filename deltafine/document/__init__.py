"""What a report holds: plain typed documents without behaviour. Nothing here loads TensorFlow."""
