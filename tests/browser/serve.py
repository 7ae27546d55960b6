#!/usr/bin/env python3
"""Serves the status page with a sample behind it, as the agent would serve it with its own state.

    serve.py [SAMPLE] [--port PORT]

`/` has SAMPLE (healthy if left out), and `/NAME/` has any other one: /failover/, /year/ … Two are made to fail:
`/silent/` answers /status with 503, `/falls-silent/` answers once and then with 503, `/nonsense/` with what is no JSON,
`/strange/` with JSON of another shape.
"""
import argparse
import http.server
import os
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
PAGE = os.path.join(HERE, "..", "..", "src", "observe", "page.html")
POLICY = ("default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
          "base-uri 'none'; form-action 'none'; frame-ancestors 'none'")


def sample(name):
    path = os.path.join(HERE, "samples", name + ".json")
    if os.path.basename(path) != name + ".json" or not os.path.exists(path):
        return None
    with open(path, "rb") as file:
        return file.read()


def server(default="healthy", port=0):
    asked = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            parts = self.path.split("?")[0].strip("/").split("/")
            name, what = (parts[0], parts[1:]) if len(parts) > 1 or self.path.split("?")[0].endswith("/") and parts[0] else (default, parts)
            if what in ([], [""]):
                with open(PAGE, "rb") as file:
                    asked.pop(name, None)
                    return self.answer(200, "text/html; charset=utf-8", file.read())
            if what == ["status"]:
                asked[name] = asked.get(name, 0) + 1
                if name == "silent" or name == "falls-silent" and asked[name] > 1:
                    return self.answer(503, "text/plain", b"not now\n")
                if name == "nonsense":
                    return self.answer(200, "application/json", b"{\"schema\": 1, ")
                if name == "strange":
                    return self.answer(200, "application/json", b"{\"schema\": 1, \"now_us\": \"soon\", \"agent\": {\"trouble\": 5}}")
                body = sample("healthy" if name == "falls-silent" else name)
                if body:
                    return self.answer(200, "application/json", body)
            return self.answer(404, "text/plain", b"not here\n")

        def answer(self, code, kind, body):
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Security-Policy", POLICY)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    return http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)


def in_background():
    """A server on a free port; returns its address and what stops it."""
    one = server()
    threading.Thread(target=one.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{one.server_address[1]}/", one.shutdown


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="Serves the status page with a sample behind it.")
    arguments.add_argument("sample", nargs="?", default="healthy")
    arguments.add_argument("--port", type=int, default=9199)
    given = arguments.parse_args()
    one = server(given.sample, given.port)
    print(f"http://127.0.0.1:{one.server_address[1]}/")
    try:
        one.serve_forever()
    except KeyboardInterrupt:
        pass
