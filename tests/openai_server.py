"""A small OpenAI-compatible server over the package's own worker, which tests run in a process of its own.

`POST /fault {"kind", "times", "model"}` makes the next requests fail: a status such as "500", "garbage", "html", "empty", "die"
(the connection, in mid-reply), "kill" (the process, in mid-reply), "stall" (says nothing), "hush" (nothing more, in mid-reply),
"slow" (a token now and then), "context" (prompt too long). `GET /asked` tells what was asked since.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from langchain_core.messages import convert_to_messages

from empathy_agent import ExpertChatModel

PARENT = "tiny"
SERVED = {"factual": "served-factual", "compassionate": "served-compassionate", "encouraging": "served-encouraging"}
fault: dict[str, Any] = {"times": 0}
asked: list[dict[str, Any]] = []


def start_server(model: Path, adapters: Path, port: str = "0") -> tuple[subprocess.Popen[str], str]:
    """Starts the server in a process of its own, and returns that with its address."""
    process = subprocess.Popen(
        [sys.executable, __file__, str(model), str(adapters), port], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, f"http://127.0.0.1:{int(process.stdout.readline())}"


def stop_server(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait(timeout=30)
    assert process.stdout is not None
    process.stdout.close()


def set_fault(address: str, kind: str = "", times: int = 0, **more: str) -> None:
    """Makes the next `times` requests fail, or with `model=name` those for one model; forgets what was asked before."""
    body = json.dumps({"kind": kind, "times": times, **more}).encode()
    urlopen(Request(f"{address}/fault", data=body, method="POST"), timeout=10).close()


def list_asked(address: str) -> list[dict[str, Any]]:
    """The `model`, `messages` and `key` of every request since the last fault was set."""
    with urlopen(f"{address}/asked", timeout=10) as answer:
        found: list[dict[str, Any]] = json.load(answer)
        return found


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model: ExpertChatModel

    def do_GET(self) -> None:
        if self.path == "/v1/models" and not self._refused():
            names = [PARENT, *(f"served-{name}" for name in self.model.worker.local.adapters)]
            entries = [{"id": n, "object": "model", "parent": None if n == PARENT else PARENT} for n in names]
            entries[0]["max_model_len"] = self.model.worker.local.context
            self._answer(200, {"object": "list", "data": entries})
        elif self.path == "/asked":
            self._answer(200, asked)
        elif self.path != "/v1/models":
            self._answer(404, {"error": {"message": "not found"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/fault":
            fault.clear()
            fault.update(body)
            asked.clear()
            return self._answer(200, {})
        asked.append({"model": body["model"], "messages": body["messages"], "key": self.headers["Authorization"]})
        name = body["model"].removeprefix("served-")
        if body["model"] != PARENT and name not in self.model.worker.local.adapters:
            return self._answer(404, {"error": {"message": f"The model `{name}` does not exist.", "code": 404}})
        if self._refused(body["model"]):
            return None
        kind = fault["kind"] if fault["times"] >= 0 and self._strikes(body["model"]) else ""
        return self._stream(body, None if body["model"] == PARENT else name, kind)

    def _strikes(self, model: str) -> bool:
        if fault["times"] <= 0 or fault.get("model", model) != model:
            return False
        fault["times"] -= 1
        return True

    def _refused(self, model: str = "") -> bool:
        """Answers with a fault that comes before the reply."""
        kind = fault.get("kind", "")
        if kind not in ("garbage", "html", "context", "stall") and not kind.isdigit():
            return False
        if not self._strikes(model):
            return False
        if kind == "stall":
            self.close_connection = True
            time.sleep(3)
        elif kind == "html":
            self._answer(200, "<html>hello</html>", "text/html")
        elif kind == "garbage":
            self._answer(200, {"oops": [1, 2]})
        elif kind == "context":
            self._answer(400, {"error": {"message": "This model's maximum context length is 512 tokens.", "code": 400}})
        else:
            self._answer(int(kind), {"error": {"message": "so it was switched"}})
        return True

    def _stream(self, body: dict[str, Any], adapter: str | None, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        messages = convert_to_messages(body["messages"])
        bound = self.model.bind(
            adapter=adapter, temperature=body["temperature"], max_new_tokens=body["max_tokens"], seed=body["seed"]
        )
        if kind != "empty":
            for piece in bound.stream(messages):
                if kind == "slow":
                    time.sleep(0.6)
                self._send({"delta": {"role": "assistant", "content": str(piece.text)}, "finish_reason": None})
                if kind == "hush":
                    time.sleep(3)
                if kind == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                if kind == "die":
                    self.close_connection = True
                    return self.connection.shutdown(socket.SHUT_RDWR)
            self._send({"delta": {}, "finish_reason": "stop"})
        for line in ("data: [DONE]\n\n", ""):
            self._write(line.encode())
        return None

    def _send(self, choice: dict[str, Any]) -> None:
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 0, "choices": [{"index": 0, **choice}]}
        self._write(f"data: {json.dumps(chunk)}\n\n".encode())

    def _write(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _answer(self, status: int, body: Any, kind: str = "application/json") -> None:
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


if __name__ == "__main__":
    Server.model = ExpertChatModel(model=sys.argv[1], adapters=sys.argv[2])
    Server.model.worker  # noqa: B018  loads it
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[3]) if len(sys.argv) > 3 else 0), Server)
    print(server.server_port, flush=True)
    server.serve_forever()
