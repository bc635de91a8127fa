"""Servers on loopback that stream video as cameras do, and break off when they are told to."""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from tests.video.painted import SIZE, paint

BOUNDARY = "frame"
RATE = 25
LARGEST_PACKET = 1200


def encoded(codec: str, frames: int, pixels: str = "yuv420p", **options: str) -> list[bytes]:
    """Painted frames 0, 1, ..., each as the encoder gives it."""
    context: Any = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = SIZE[1], SIZE[0], pixels
    context.time_base, context.options = Fraction(1, RATE), options
    packets = []
    for number in range(frames):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(paint(number)), format="rgb24").reformat(format=pixels)
        frame.pts = number
        packets += context.encode(frame)
    return [bytes(packet) for packet in [*packets, *context.encode(None)]]


def as_jpegs(frames: int = 100) -> list[bytes]:
    """What a network camera sends over HTTP: pictures, each behind a boundary."""
    return [
        f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n".encode()
        + picture
        + b"\r\n"
        for picture in encoded("mjpeg", frames, "yuvj420p")
    ]


def as_transport_stream(frames: int = 100) -> list[bytes]:
    """H.264 in an MPEG transport stream, a key frame every fifth of a second, in pieces of about a frame each."""
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as container:
        stream: Any = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        stream.options = {"tune": "zerolatency", "g": "5", "preset": "ultrafast"}
        for number in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(paint(number)), "rgb24")))
        container.mux(stream.encode(None))
    content = file.getvalue()
    each = 188 * max(len(content) // 188 // frames, 1)
    return [content[begin : begin + each] for begin in range(0, len(content), each)]


@contextlib.contextmanager
def live_playlist(folder: Path) -> Iterator[str]:
    """Writes HLS as a camera does, a piece of half a second after the other; gives the name of the playlist."""
    over = threading.Event()
    options = {"hls_time": "0.5", "hls_list_size": "4", "hls_flags": "delete_segments"}

    def write() -> None:
        with av.open(str(folder / "live.m3u8"), "w", format="hls", options=options) as container:
            stream: Any = container.add_stream("libx264", rate=RATE)
            stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
            stream.options = {"tune": "zerolatency", "g": "5", "preset": "ultrafast"}
            for number in itertools.count():
                if over.wait(1 / RATE):
                    break
                picture = np.ascontiguousarray(paint(number % 100))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))

    writing = threading.Thread(target=write)
    writing.start()
    try:
        while not (folder / "live.m3u8").exists():
            time.sleep(0.05)
        yield "live.m3u8"
    finally:
        over.set()
        writing.join()


class StreamServer:
    """Sends pieces over HTTP at a camera's rate, over and over, to whoever asks. A context manager.

    Attributes:
        silent: while it is set, connections stay open and nothing comes.
        watched: set as soon as somebody is sent something.
        connections: how many there were.
    """

    def __init__(self, pieces: Sequence[bytes], content_type: str, *, rate: float = RATE) -> None:
        self._pieces, self._type, self._rate = pieces, content_type, rate
        self.silent, self.watched = threading.Event(), threading.Event()
        self.connections = 0
        self._open: list[socket.socket] = []
        self._over = threading.Event()
        self._listening = self._listen(0)
        self.port = self._listening.getsockname()[1]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/stream"

    def cut(self) -> None:
        """Break off what is connected now."""
        for connection in self._open:
            with contextlib.suppress(OSError):  # whoever watched has left
                connection.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def down(self) -> None:
        """Break off, and answer nobody until ``up``."""
        with contextlib.suppress(OSError):  # it is down already
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.cut()

    def up(self) -> None:
        self._listening = self._listen(self.port)

    def __enter__(self) -> StreamServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.down()

    def _listen(self, port: int) -> socket.socket:
        listening = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, args=(listening,), daemon=True).start()
        return listening

    def _accept(self, listening: socket.socket) -> None:
        while not self._over.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:  # it is down
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._until_it_breaks, args=(connection,), daemon=True).start()

    def _until_it_breaks(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:  # whoever watched has left, or was cut off
            self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        connection.recv(4096)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {self._type}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        for piece in self._paced(itertools.cycle(self._pieces)):
            connection.sendall(piece)

    def _paced(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        due = time.monotonic()
        for piece in pieces:
            while self.silent.is_set() and not self._over.wait(0.05):
                due = time.monotonic()
            due += 1 / self._rate
            if self._over.wait(max(due - time.monotonic(), 0.0)):
                return
            self.watched.set()
            yield piece


class RtspServer(StreamServer):
    """H.264 over RTSP (RFC 2326), in RTP packets (RFC 6184) on the connection itself: painted, or what is given."""

    def __init__(self, pieces: Sequence[bytes] = (), *, rate: float = RATE) -> None:
        options = {"tune": "zerolatency", "g": "5", "preset": "ultrafast"}
        super().__init__(pieces or encoded("libx264", 100, **options), "", rate=rate)
        sets = [unit for unit in _units(self._pieces[0]) if unit[0] & 31 in (7, 8)]
        self._sets = ",".join(base64.b64encode(unit).decode() for unit in sets)

    @property
    def address(self) -> str:
        return f"rtsp://127.0.0.1:{self.port}/stream"

    def _serve(self, connection: socket.socket) -> None:
        requests = connection.makefile("rb")
        while (line := requests.readline().decode()) and not line.startswith("PLAY"):
            self._answer(connection, line, _headers(requests))
        if line:
            self._answer(connection, line, _headers(requests))
            self._play(connection)

    def _answer(self, connection: socket.socket, request: str, headers: dict[str, str]) -> None:
        method, body, more = request.split()[0], "", ""
        if method == "OPTIONS":
            more = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
        elif method == "DESCRIBE":
            body = (
                "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n"
                "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:track\r\n"
                f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={self._sets}\r\n"
            )
            more = f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
        elif method == "SETUP":
            more = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
        connection.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {headers['cseq']}\r\nSession: 1\r\n{more}\r\n{body}".encode())

    def _play(self, connection: socket.socket) -> None:
        sequence = 0
        for number, access_unit in enumerate(self._paced(itertools.cycle(self._pieces))):
            payloads = [payload for unit in _units(access_unit) for payload in _payloads(unit)]
            for place, payload in enumerate(payloads):
                marker = 128 * (place == len(payloads) - 1)
                header = struct.pack(">BBHII", 128, marker | 96, sequence & 65535, int(number * 90000 / self._rate), 1)
                packet = header + payload
                connection.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
                sequence += 1


def _headers(requests: Any) -> dict[str, str]:
    lines = iter(lambda: requests.readline().decode().strip(), "")
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _units(access_unit: bytes) -> list[bytes]:
    """The NAL units of H.264 as encoders write it, behind start codes."""
    return [unit.rstrip(b"\0") for unit in access_unit.split(b"\0\0\1") if unit.strip(b"\0")]


def _payloads(unit: bytes) -> Iterator[bytes]:
    """A NAL unit as it is, or in fragments (FU-A)."""
    if len(unit) <= LARGEST_PACKET:
        yield unit
        return
    pieces = [unit[begin : begin + LARGEST_PACKET] for begin in range(1, len(unit), LARGEST_PACKET)]
    for place, piece in enumerate(pieces):
        edge = 128 * (place == 0) | 64 * (place == len(pieces) - 1)
        yield bytes([unit[0] & 0xE0 | 28, edge | unit[0] & 31]) + piece
