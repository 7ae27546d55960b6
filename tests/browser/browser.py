"""A headless Chromium, spoken to by its debugging pipe: the standard library is enough."""
import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time


class Failed(Exception):
    pass


class Browser:
    def __init__(self, program):
        self.profile = tempfile.mkdtemp(prefix="page-test-")
        to_read, self.write = os.pipe()
        self.read, to_write = os.pipe()
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
                 "--disable-background-networking", "--disable-component-update", "--disable-extensions", "--force-device-scale-factor=1",
                 "--remote-debugging-pipe", f"--user-data-dir={self.profile}", "about:blank"]
        # The pipe is file 3 and 4 of the browser.
        self.process = subprocess.Popen(["bash", "-c", f'exec "$@" 3<&{to_read} 4>&{to_write}', "-", program, *flags], pass_fds=(to_read, to_write),
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(to_write)
        self.buffer, self.number, self.events, self.session = b"", 0, [], None

    def close(self):
        try:
            self.call("Browser.close", session=None, limit=5)
        except (Failed, OSError):
            pass
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self.write)
        os.close(self.read)
        shutil.rmtree(self.profile, ignore_errors=True)

    def message(self, end):
        while b"\0" not in self.buffer:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.read], [], [], left)[0]:
                raise Failed("the browser does not answer")
            part = os.read(self.read, 1 << 20)
            if not part:
                raise Failed("the browser has ended")
            self.buffer += part
        one, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(one)

    def call(self, method, limit=30, session=0, **parameters):
        self.number += 1
        number, request = self.number, {"id": self.number, "method": method, "params": parameters}
        if session == 0 and self.session:
            request["sessionId"] = self.session
        os.write(self.write, json.dumps(request).encode() + b"\0")
        end = time.monotonic() + limit
        while True:
            answer = self.message(end)
            if answer.get("id") == number:
                if "error" in answer:
                    raise Failed(f"{method}: {answer['error'].get('message')}")
                return answer["result"]
            if "method" in answer:
                self.events.append(answer)

    def open(self, url, width, height, dark=False):
        """A new page of that size; waits until it has asked its agent once."""
        self.leave()
        target = self.call("Target.createTarget", session=None, url="about:blank")["targetId"]
        self.target = target
        self.session = self.call("Target.attachToTarget", session=None, targetId=target, flatten=True)["sessionId"]
        self.events = []
        for domain in ("Page", "Runtime", "Log"):
            self.call(domain + ".enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && (document.getElementById('head').dataset.state !== 'waiting' || !document.getElementById('banner').hidden)")

    def leave(self):
        if self.session:
            self.call("Target.closeTarget", session=None, targetId=self.target)
            self.session = None

    def js(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise Failed(expression + ": " + str(result["exceptionDetails"].get("exception", {}).get("description")))
        return result["result"].get("value")

    def wait(self, expression, limit=15):
        end = time.monotonic() + limit
        while not self.js(expression):
            if time.monotonic() > end:
                raise Failed("in vain waited for: " + expression)
            time.sleep(0.05)

    def complaints(self):
        """What the page has said in the console, and what it has thrown."""
        self.js("0")
        said = []
        for event in self.events:
            what = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                said.append(what["exceptionDetails"].get("exception", {}).get("description") or what["exceptionDetails"]["text"])
            elif event["method"] == "Runtime.consoleAPICalled":
                said.append("console: " + str([one.get("value") for one in what["args"]]))
            elif event["method"] == "Log.entryAdded":
                said.append(f"{what['entry']['level']}: {what['entry']['text']} {what['entry'].get('url', '')}")
        return said

    def key(self, key):
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode={"ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35}[key])

    def mouse(self, kind, x, y):
        button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def screenshot(self, path, whole=True):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]))
