"""What reading a clip costs in recordings of growing length, with and without time stamps that tell frames apart.

    python -m tests.benchmarks.video                    # 5, 10, 20 and 40 minutes
    python -m tests.benchmarks.video --minutes 5 10

Pictures are 64x48, H.264 with B-frames, a key frame about every 2 seconds. The containers are MP4, whose time stamps
ascend, and AVI, raw H.264 and transport streams that are joined end to end, whose time stamps do not. Printed are
milliseconds of processor time: of reading through the file, for a frame; and of reading a clip of 8 frames, for the
last clips in order and for clips from all over the file, in random order. If costs are linear in the length, no column
grows.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.bitstream import BitStreamFilterContext

from deltafine.video import Dataset, open_dataset
from tests.video.painted import write_video

RATE, SECONDS, SIZE, GROUP = 25, 60, (48, 64), 47  # no divisor of where clips begin
FRAMES, BATCH, CLIPS = 8, 10, 100
OPTIONS = {"bf": "2", "preset": "ultrafast", "sc_threshold": "0", "x264-params": "open-gop=0"}
KINDS = ("mp4", "avi", "h264", "ts")


def write_minute(path: Path) -> Path:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 255, (6, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    pictures = [np.roll(noise, number, axis=1) for number in range(RATE * SECONDS)]
    return write_video(path, pictures=pictures, codec="libx264", rate=RATE, group=GROUP, options=OPTIONS)


def write_recording(minute: Path, path: Path, minutes: int) -> Path:
    """The minute again and again, its packets as they are."""
    if path.suffix == ".ts":
        with path.open("wb") as file:
            for _ in range(minutes):
                file.write(minute.with_suffix(".ts").read_bytes())
        return path
    with av.open(str(path), "w") as new:
        after: Any = None
        for number in range(minutes):
            with av.open(str(minute)) as old:
                before = old.streams.video[0]
                if after is None:
                    after = new.add_stream_from_template(before)
                    after.time_base = Fraction(1, RATE)  # AVI has an entry for every tick, also of nothing
                raw = path.suffix in (".avi", ".h264")
                converted = BitStreamFilterContext("h264_mp4toannexb", before, after) if raw else None
                assert before.time_base is not None
                shift = round(number * SECONDS / before.time_base)
                for packet in old.demux(before):
                    if packet.dts is None or packet.pts is None:
                        continue
                    for one in [packet] if converted is None else converted.filter(packet):
                        one.pts, one.dts = (one.pts or 0) + shift, (one.dts or 0) + shift
                        one.stream = after
                        new.mux(one)
    return path


def milliseconds_a_clip(data: Dataset, **how: Any) -> float:
    batches = data.clips(None, size=SIZE, frames=FRAMES, batch=BATCH, workers=1, **how)
    begin = time.process_time()
    read = sum(len(batch.frames) for batch in batches)
    return 1000 * (time.process_time() - begin) / read


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=int, nargs="+", default=[5, 10, 20, 40])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    given = parser.parse_args()
    print(f"{'file':8}{'minutes':>8}{'frames':>8}{'read through':>14}{'in order':>10}{'shuffled':>10}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        minute = write_minute(Path(folder, "minute.mp4"))
        write_minute(minute.with_suffix(".ts"))
        for kind in given.kinds:
            for minutes in given.minutes:
                path = write_recording(minute, Path(folder, f"recording.{kind}"), minutes)
                data = open_dataset(path)
                begin = time.process_time()
                data.scan(workers=1)
                scanned = time.process_time() - begin
                index = data.index(data.videos[0])
                if index is None:
                    raise SystemExit(f"{kind}: {data.problems}")
                batches = len(data.clips(None, size=SIZE, frames=FRAMES, batch=BATCH))
                ordered = milliseconds_a_clip(data, start_batch=batches - CLIPS // BATCH)
                shuffled = milliseconds_a_clip(data, shuffle=True, clips_per_video=CLIPS)
                figures = f"{1000 * scanned / index.count:14.3f}{ordered:10.1f}{shuffled:10.1f}"
                print(f"{kind:8}{minutes:8}{index.count:8}{figures}", flush=True)
                path.unlink()


if __name__ == "__main__":
    main()
