"""Playing live streams from servers on loopback: what is played, and what becomes of a connection that breaks off."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from deltafine.jobs.played import Played, Said
from deltafine.jobs.run import Playing, play
from deltafine.video.live import live_frames
from deltafine.video.named_source import named_sources
from tests.cli.running import Command
from tests.kept_plans import write_played_run
from tests.video.painted import SIZE, number_of, write_video
from tests.video.streaming import BOUNDARY, RtspServer, StreamServer, as_jpegs, as_transport_stream, live_playlist


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_played_run(tmp_path_factory.mktemp("streams") / "run")


def camera(rate: float = 25) -> StreamServer:
    return StreamServer(as_jpegs(), f"multipart/x-mixed-replace; boundary={BOUNDARY}", rate=rate)


def transport() -> StreamServer:
    return StreamServer(as_transport_stream(), "video/mp2t")


SERVERS = pytest.mark.parametrize("server", [camera, transport, RtspServer])


def until(
    playing: Playing, enough: Callable[[list[Played], list[str]], bool] = lambda *_: False
) -> tuple[list[Played], list[str]]:
    """The frames that are played, and what is said, until these are enough, or all is over."""
    frames, said = [], []
    begin = time.monotonic()
    for event in playing:
        assert time.monotonic() - begin < 120
        frames += [event] if isinstance(event, Played) else []
        said += [event.text] if isinstance(event, Said) else []
        if enough(frames, said):
            break
    return frames, said


def so_many(count: int) -> Callable[[list[Played], list[str]], bool]:
    return lambda frames, _: len(frames) == count


@SERVERS
def test_frames_come_from_a_server_as_they_were_encoded(server: Callable[[], StreamServer]) -> None:
    with server() as running:
        frames = live_frames(running.address, SIZE, 3)
        numbers = [number_of(next(frames)) for _ in range(8)]
        frames.close()  # type: ignore[attr-defined]
    assert numbers == list(range(numbers[0], numbers[0] + 8))


@SERVERS
def test_a_stream_that_is_cut_is_connected_to_again_within_two_seconds(
    server: Callable[[], StreamServer], run: Path
) -> None:
    with server() as running, play(run, [running.address]) as playing:
        before, _ = until(playing, so_many(5))
        running.cut()
        cut = time.time()
        after, (first, second) = until(
            playing, lambda frames, said: len(said) == 2 and bool(frames) and frames[-1].arrived > cut + 0.5
        )
    assert running.connections == 2
    assert playing.whole.reconnections == 1
    assert first.endswith("connecting again")
    assert second.startswith("is back after ")
    frames = before + after
    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # programs that want a core, for each core
    assert max(later.arrived - frame.arrived for frame, later in pairwise(frames)) < 2 * busy
    assert all(later.number > frame.number for frame, later in pairwise(frames))


def test_a_camera_that_falls_silent_is_connected_to_again(run: Path) -> None:
    with camera() as running, play(run, [running.address]) as playing:
        until(playing, so_many(5))
        running.silent.set()
        _, said = until(playing, lambda _, said: len(said) == 1)
        running.silent.clear()
        _, more = until(playing, lambda _, said: len(said) == 1)
    assert said == ["is silent: connecting again"]
    assert more[0].startswith("is back after ")


def test_a_camera_that_is_away_for_a_while_is_connected_to_again(run: Path) -> None:
    with camera() as running, play(run, [running.address]) as playing:
        until(playing, so_many(5))
        running.down()
        until(playing, lambda _, said: len(said) == 1)
        running.up()
        up = time.time()
        frames, _ = until(playing, so_many(1))
    assert frames[0].arrived - up < 2


def test_whoever_reads_slowly_is_given_the_newest_frame_and_not_a_growing_queue(run: Path) -> None:
    with camera(rate=50) as running, play(run, [running.address]) as playing:
        ages = []
        for event in playing:
            ages.append(time.time() - event.arrived if isinstance(event, Played) else 0.0)
            time.sleep(0.2)
            if len(ages) == 12:
                break
    assert playing.whole.skipped > 30
    assert max(ages[-4:]) < 1.5


def test_several_cameras_share_a_process_and_one_that_is_away_keeps_nobody_waiting(run: Path) -> None:
    with camera() as one, camera() as other, camera() as away:
        away.down()
        with play(run, [one.address, other.address, away.address], frames=10) as playing:
            frames, said = until(playing, so_many(20))
        away.up()
    assert {frame.source for frame in frames} == {one.address, other.address}
    assert len(said) == 1
    assert said[0].endswith("connecting again")


def test_a_server_that_is_not_there_is_refused(deltafine: Command, run: Path) -> None:
    with camera() as running:
        address = running.address
    refusal = deltafine("run", run, address).refusal
    assert refusal.startswith(f"The stream {address} cannot be read (")


def test_a_recording_on_a_server_is_played_whole(run: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "film.avi", 30)
    with _file_server(tmp_path) as address, play(run, [f"{address}/film.avi"]) as playing:
        frames, said = until(playing)
    assert [frame.number for frame in frames] == list(range(30))
    assert said == []


def test_a_live_playlist_is_played_as_it_grows(run: Path, tmp_path: Path) -> None:
    """HLS: pieces of a list that names the newest ones, over HTTP."""
    with (
        live_playlist(tmp_path) as name,
        _file_server(tmp_path) as address,
        play(run, [f"{address}/{name}"]) as playing,
    ):
        # More than the list held at first: what a slow machine plays early is within its first pieces.
        frames, said = until(playing, lambda frames, _: len(frames) >= 8 and frames[-1].number > 40)
    assert said == []
    assert all(later.number > frame.number for frame, later in pairwise(frames))
    assert frames[-1].number > 40
    assert playing.whole.reconnections == 0


def _file_server(folder: Path):  # type: ignore[no-untyped-def]
    import contextlib
    import functools
    import threading
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    @contextlib.contextmanager
    def serve():  # type: ignore[no-untyped-def]
        with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()

    return serve()


def test_a_password_in_an_address_is_not_shown() -> None:
    (source,) = named_sources(["rtsp://user:secret@camera/stream"])
    assert source.label == "rtsp://user:***@camera/stream"
