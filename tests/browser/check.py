#!/usr/bin/env python3
"""Holds the status page against its samples, or against a running agent, in a headless Chromium. Called by run.sh."""
import json
import os
import re
import sys
import urllib.request

import samples
import serve
from browser import Browser, Failed

SIZES = {"phone": (360, 800), "wide": (1280, 900)}
OVERFLOW = """(() => { const root = document.documentElement, out = [];
  if (root.scrollWidth > innerWidth) for (const one of document.querySelectorAll('body *'))
    if (one.getBoundingClientRect().right > innerWidth + .5) out.push(one.tagName + '#' + one.id + ' ' + one.getBoundingClientRect().right);
  return root.scrollWidth > innerWidth ? root.scrollWidth + ' of ' + innerWidth + ': ' + out.slice(0, 5).join(', ') : ''; })()"""
# Text of less contrast than WCAG's AA asks for, against the nearest background that is not transparent.
CONTRAST = """(() => { const bad = new Set(), lum = c => { const [r, g, b] = c.map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
  const rgb = text => (text.match(/[\\d.]+/g) || []).map(Number), clear = c => c.length === 4 && c[3] === 0;
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) { const one = walk.currentNode.parentElement; if (!walk.currentNode.data.trim() || !one.checkVisibility() || one.closest('script,style,.off')) continue;
    const style = getComputedStyle(one), ink = rgb(one.ownerSVGElement ? style.fill : style.color); let back = one, paper = [];
    for (; back; back = back.parentElement) { paper = rgb(getComputedStyle(back).backgroundColor); if (paper.length && !clear(paper)) break; }
    const [x, y] = [lum(ink.slice(0, 3)), lum(paper.slice(0, 3))].sort((a, b) => b - a), ratio = (x + .05) / (y + .05);
    if (ratio < 4.5) bad.add(one.tagName + '.' + one.getAttribute('class') + ' ' + ratio.toFixed(2) + ' ' + walk.currentNode.data.slice(0, 30)); }
  return [...bad].slice(0, 6).join('; '); })()"""
# All that may be null or empty is so now and then, by a fixed sequence of dice; what cannot be drawn, or is drawn as nonsense, is told.
NULLS = r"""(async () => {
  const source = await (await fetch('status')).json(), out = new Set();
  let seed = 7;
  const one_in = n => (seed = seed * 48271 % 2147483647) % n === 0, empty = (object, n, ...names) => { if (object) for (const name of names) if (one_in(n)) object[name] = null; };
  for (let i = 0; i < 60; i++) {
    const d = structuredClone(source), archive = d.archive;
    empty(d.agent, 4, 'server', 'server_version', 'durable', 'durable_commit_us', 'server_position', 'asked_us', 'lag_seconds', 'lag_bytes', 'semi_sync', 'spool',
      'purge_margin_files', 'purge_horizon_seconds', 'trouble', 'base_due_us', 'prune_due_us', 'verify');
    empty(d.agent.semi_sync, 3, 'reason', 'last_ack_us');
    empty(d.agent.spool, 3, 'oldest_us');
    if (one_in(2)) d.agent.state = 'connecting';
    for (const server of archive ? archive.servers : []) {
      empty(server, 5, 'restorable_from', 'durable');
      if (one_in(4)) delete server.restorable_from;
      if (one_in(9)) server.ranges = [];
      for (const range of server.ranges) empty(range, 5, 'first_commit', 'last_commit', 'executed_before', 'executed');
    }
    if (archive) {
      for (const gap of archive.recorded_gaps) empty(gap, 3, 'missing', 'lost');
      for (const one of archive.protection.objectives) empty(one, 3, 'met', 'measured_seconds');
      empty(archive.protection, 4, 'newest_base', 'verified', 'last_drill');
      if (one_in(12)) archive.servers = [];
    }
    for (const name of ['bases', 'drills', 'actions', 'history']) if (one_in(6)) d[name] = d[name].slice(0, i % 3);
    if (one_in(14)) Object.assign(d, { archive: null, archive_as_of_us: null, bases: [], drills: [] });
    try { data = d; show(); } catch (error) { out.add(error.stack.split('\n').slice(0, 2).join()); continue; }
    const nonsense = document.querySelector('#all').textContent.match(/.{0,40}(undefined|NaN|\[object|Infinity|Invalid|1970|null).{0,20}/);
    if (nonsense) out.add(nonsense[0]);
    for (const one of document.querySelectorAll('svg *')) for (const { name, value } of one.attributes) if (/NaN|undefined|Infinity/.test(value)) out.add(one.tagName + ' ' + name + '=' + value.slice(0, 60));
  }
  return [...out].slice(0, 5).join('; '); })()"""
# What is in the picture, counted.
PICTURE = """(() => { const svg = document.getElementById('picture'); if (!svg) return null;
  const all = [...svg.querySelectorAll('[data-kind]')], of = (...kinds) => all.filter(one => kinds.includes(one.dataset.kind)), sum = list => list.reduce((n, one) => n + +one.dataset.count, 0);
  return { ranges: of('restorable', 'archived').length, restorable: of('restorable').length, archived: of('archived').length, missing: of('missing').length, breaks: of('break', 'bare').length,
    bases: sum(of('base')), drills: sum(of('held', 'failed')), failed: sum(of('failed')), lanes: svg.querySelectorAll('.lane').length }; })()"""
# Names for all that can be reached by keyboard, no id twice.
NAMES = """(() => { const out = [], seen = new Set();
  for (const one of document.querySelectorAll('[id]')) { if (seen.has(one.id)) out.push('id twice: ' + one.id); seen.add(one.id); }
  for (const one of document.querySelectorAll('a,button,summary,[tabindex],[role=option]'))
    if (!(one.getAttribute('aria-label') || one.textContent).trim()) out.push('no name: ' + one.outerHTML.slice(0, 80));
  for (const one of document.querySelectorAll('[aria-labelledby]')) if (!document.getElementById(one.getAttribute('aria-labelledby'))) out.push('no label: ' + one.id);
  return out.slice(0, 5).join('; '); })()"""

# For each sample: state, what the headline must say, what it must not, what the picture has, and what else the page must say.
WANTED = {
    "healthy": ("ok", "Everything is archived, 0.8 s behind", "nothing can be restored",
                {"ranges": 2, "restorable": 1, "archived": 1, "breaks": 0, "bases": 14, "drills": 1, "lanes": 1},
                ["Any moment since 15 Nov 03:06 UTC", "A drill proved it", "in 12 min", "s3://backups-eu/binvault/shop", "met: wanted 60 s, measured 0.8 s", "Not asked for"]),
    "fresh": ("bad", "No base backup yet: nothing can be restored", "Any moment",
              {"ranges": 1, "restorable": 0, "archived": 1, "breaks": 0, "bases": 0, "drills": 0, "lanes": 1}, ["Everything is archived", "no schedule", "none yet"]),
    "gap-without-base": ("bad", "A gap: nothing committed since 27 Nov 19:52 UTC", "Any moment",
                         {"ranges": 3, "restorable": 1, "archived": 2, "breaks": 1, "bases": 13, "drills": 2, "lanes": 1},
                         ["What is before it can be, from 15 Nov 03:06 UTC", "1 break", "SET PERSIST"]),
    "interrupted": ("bad", "Archiving has been interrupted for 3 min: the server does not answer", "Everything is archived",
                    {"restorable": 1, "missing": 1, "breaks": 0, "bases": 14, "drills": 1, "lanes": 1}, ["Any moment from 15 Nov 03:06 UTC", "to 28 Nov 03:09 UTC"]),
    "protected-spool": ("ok", "Everything is archived", "not protected", {"restorable": 1, "bases": 14, "lanes": 1},
                        ["Protected since 27 Nov 21:12 UTC", "3 objects, 41 MiB", "/var/spool/binvault", "412 commits since it was first reached"]),
    "lapsed": ("bad", "The last drill failed", "A drill proved it", {"restorable": 1, "bases": 14, "drills": 2, "lanes": 1},
               ["Commits are not protected since 28 Nov 03:01 UTC", "Not protected", "goes on", "too many to be listed", "index is corrupted", "46 s behind"]),
    "failover": ("ok", "Everything is archived", "nothing can be restored",
                 {"ranges": 4, "restorable": 3, "archived": 1, "breaks": 1, "bases": 12, "drills": 2, "lanes": 3}, ["Any moment since 15 Nov 03:06 UTC", "1 break in the history; see below"]),
    "year": ("ok", "Everything is archived", "nothing can be restored",
             {"ranges": 4, "restorable": 2, "archived": 2, "breaks": 1, "bases": 365, "drills": 52, "failed": 1, "lanes": 1}, ["Any moment since 14 May 03:06 UTC", "1 break in the history; see below"]),
    "empty": ("warn", "Connecting to the server", "Everything is archived", None, ["what can be restored is not known", "Nothing to draw yet", "Nothing was measured yet"]),
    "hostile": ("bad", "No base backup leads to the present", "A drill proved it", {"bases": 1, "drills": 1, "lanes": 1}, ["<img src=x onerror=", "</script><script>window.hacked=1</script>"]),
}


class Run:
    def __init__(self, browser, shots):
        self.browser, self.shots, self.problems, self.checks = browser, shots, [], 0

    def hold(self, where, what, fine, seen=""):
        self.checks += 1
        if not fine:
            self.problems.append(f"{where}: {what}: {seen}" if seen not in ("", None) else f"{where}: {what}")

    def shot(self, name):
        if self.shots:
            self.browser.screenshot(os.path.join(self.shots, name + ".png"))

    def common(self, where):
        """What holds for every page, whatever is behind it."""
        js = self.browser.js
        self.hold(where, "wider than the screen", not (seen := js(OVERFLOW)), seen)
        self.hold(where, "too little contrast", not (seen := js(CONTRAST)), seen)
        self.hold(where, "names for those who do not see it", not (seen := js(NAMES)), seen)
        self.hold(where, "one headline", js("document.querySelectorAll('h1').length === 1 && document.querySelector('h1').textContent.trim().length > 10"))
        self.hold(where, "says 'undefined', 'NaN' or the like",
                  not (seen := js(r"(document.querySelector('#all').textContent.match(/.{0,30}(undefined|NaN|\[object|Invalid Date|null).{0,20}/) || [''])[0]")), seen)
        self.hold(where, "numbers that are none in the drawings",
                  not (seen := js(r"[...document.querySelectorAll('svg *')].flatMap(one => [...one.attributes]).filter(one => /NaN|undefined|Infinity/.test(one.value)).map(one => one.name + '=' + one.value.slice(0, 60)).slice(0, 3).join()")), seen)
        self.hold(where, "negative widths", not js("[...document.querySelectorAll('svg rect')].filter(one => +one.getAttribute('width') < 0).length"))
        self.hold(where, "marks outside of the picture", not (seen := js("""(() => { const svg = document.getElementById('picture'); if (!svg) return ''; const box = svg.getBoundingClientRect();
          return [...svg.querySelectorAll('[role=option]')].filter(one => { const at = one.getBoundingClientRect(); return at.left < box.left - 4 || at.right > box.right + 4; }).map(one => one.dataset.kind).join(); })()""")), seen)
        js("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        self.hold(where, "wider than the screen with its lists open", not (seen := js(OVERFLOW)), seen)
        self.hold(where, "lists wider than their panel", not (seen := js("""[...document.querySelectorAll('.table')].filter(one =>
          one.getBoundingClientRect().right > one.closest('section').getBoundingClientRect().right).map(one => one.getAttribute('aria-label')).join()""")), seen)
        self.hold(where, "too little contrast in its lists", not (seen := js(CONTRAST)), seen)
        self.hold(where, "complaints in the console", not (seen := self.browser.complaints()), seen)

    def sample(self, url, name):
        state, says, not_says, picture, everywhere = WANTED[name]
        js = self.browser.js
        for size, (width, height) in SIZES.items():
            for dark in (False, True):
                where = f"{name}, {size}, {'dark' if dark else 'light'}"
                self.browser.open(f"{url}{name}/", width, height, dark)
                self.shot(f"{name}-{size}-{'dark' if dark else 'light'}")
                self.common(where)
                self.hold(where, f"state {state}", js("document.getElementById('head').dataset.state") == state, js("document.getElementById('head').dataset.state"))
                head = js("document.querySelector('h1').textContent")
                self.hold(where, f"headline has {says!r}", says in head, head)
                whole = js("document.getElementById('head').textContent")
                self.hold(where, f"head has not {not_says!r}", not_says not in whole, whole)
                have = js(PICTURE)
                for key, value in (picture or {}).items():
                    # Less than a pixel of what no base backup stands before is not drawn.
                    if key in ("ranges", "archived") and have and have[key] == value - 1 and size == "phone":
                        continue
                    self.hold(where, f"{key} = {value}", have and have.get(key) == value, have)
                if picture is None:
                    self.hold(where, "no picture", have is None, have)
                page = js("document.querySelector('#all').textContent").replace("\u00a0", " ")
                for words in everywhere:
                    self.hold(where, f"says {words!r}", words in page)
        self.hold(name, "what may be null", not (seen := js(NULLS)), seen)
        if name == "hostile":
            self.hold(name, "nothing of it ran", js("window.hacked === undefined && !document.title.startsWith('HACKED') && !document.querySelector('#all img')"))

    def hands(self, url):
        """Keyboard and mouse in the picture and the charts, and what stays when new answers come."""
        browser, js = self.browser, self.browser.js
        browser.open(url + "gap-without-base/", 1280, 900)
        detail = lambda: js("document.getElementById('detail').textContent")
        js("document.getElementById('picture').focus()")
        seen = set()
        browser.key("Home")
        first = detail()
        for _ in range(40):
            seen.add(js("document.querySelector('#picture [aria-selected=true]')?.dataset.kind"))
            browser.key("ArrowRight")
        self.hold("keyboard", "reaches all kinds", seen == {"restorable", "archived", "base", "bare", "held"}, seen)
        self.hold("keyboard", "tells of what is chosen", "Archived, but no base backup" in first or "Base backup" in first, first)
        browser.key("End")
        last = detail()
        js("window.dispatchEvent(new Event('online'))")
        browser.js("new Promise(done => setTimeout(done, 300))")
        self.hold("keyboard", "choice and focus stay", detail() == last and js("document.activeElement.id") == "picture", detail())
        box = js("{const at = document.querySelector('#picture [data-kind=restorable]').getBoundingClientRect(); [at.left + at.width / 2, at.top + 5]}")
        browser.mouse("mouseMoved", *box)
        self.hold("mouse", "tells of the moment", re.search(r"can be restored. The plan: binvault restore --to 2026-11-2\dT\d\d:\d\d:\d\dZ --dry-run", detail()), detail())
        browser.mouse("mousePressed", *box)
        browser.mouse("mouseReleased", *box)
        browser.mouse("mouseMoved", 5, 5)
        self.hold("mouse", "a click stays", "can be restored. The plan" in detail(), detail())
        self.hold("chart", "tells of its peak", re.search(r"at most 0\.9 s at 0\d:\d\d", js("document.getElementById('r-lag').textContent")), js("document.getElementById('r-lag').textContent"))
        js("document.querySelector('details').open = true; document.querySelector('details').dataset.mine = 1; window.dispatchEvent(new Event('online'))")
        browser.js("new Promise(done => setTimeout(done, 300))")
        self.hold("lists", "stay open", js("document.querySelector('details').open"))
        self.hold("copying", "says so", js("new Promise(done => { const one = document.querySelector('#do [data-copy]'); one.click(); setTimeout(() => done(one.textContent), 200); })") == "Copied")
        browser.open(url + "interrupted/", 1280, 900)
        self.hold("chart", "missing data is a gap in the line", js("(document.querySelector('#c-lag path.k1').getAttribute('d').match(/M/g) || []).length") == 2,
                  js("document.querySelector('#c-lag path.k1').getAttribute('d').slice(0, 80)"))
        self.hold("chart", "what is not archived is drawn", js("document.querySelectorAll('#picture [data-kind=missing]').length") == 1)
        self.hold("hands", "complaints in the console", not browser.complaints(), browser.complaints())

    def silence(self, url):
        browser, js = self.browser, self.browser.js
        banner = lambda: js("document.getElementById('banner').hidden ? '' : document.getElementById('banner').textContent")
        for width, height in SIZES.values():
            browser.open(url + "silent/", width, height)
            self.hold("silent", "says so", "No answer from the agent since" in banner() and "it answered 503" in banner() and "no data yet" in banner(), banner())
            self.hold("silent", "no data yet", "No data yet" in js("document.querySelector('h1').textContent"))
            self.hold("silent", "wider than the screen", not (seen := js(OVERFLOW)), seen)
            self.shot(f"silent-{width}")
            browser.open(url + "falls-silent/", width, height)
            self.hold("falls silent", "no banner before", banner() == "", banner())
            js("window.dispatchEvent(new Event('online'))")
            browser.wait("!document.getElementById('banner').hidden")
            self.hold("falls silent", "since when", "No answer since 28 Nov 03:12:44 UTC" in banner(), banner())
            self.hold("falls silent", "the picture stays, greyed", js("document.body.classList.contains('stale') && document.querySelectorAll('#picture [data-kind=base]').length > 0"))
            self.hold("falls silent", "the title tells", js("document.title").startswith("No answer"), js("document.title"))
            self.shot(f"falls-silent-{width}")
        browser.open(url + "nonsense/", 1280, 900)
        self.hold("no JSON", "says so", "no JSON" in banner(), banner())
        browser.open(url + "strange/", 1280, 900)
        self.hold("another shape", "says so", "cannot be drawn" in banner(), banner())

    def running(self, url):
        """A running agent: whatever its state is, what the page says must be what /status says."""
        with urllib.request.urlopen(url + "status", timeout=10) as answer:
            status = json.load(answer)
        js = self.browser.js
        for size, (width, height) in SIZES.items():
            for dark in (False, True):
                where = f"agent, {size}, {'dark' if dark else 'light'}"
                self.browser.open(url, width, height, dark)
                self.shot(f"agent-{size}-{'dark' if dark else 'light'}")
                self.common(where)
                self.hold(where, "no banner", js("document.getElementById('banner').hidden"), js("document.getElementById('banner').textContent"))
                state = js("document.getElementById('head').dataset.state")
                self.hold(where, "a state", state in ("ok", "warn", "bad", "unknown"), state)
                self.hold(where, "its name", status["agent"]["id"] in js("document.getElementById('top').textContent"))
                if js("!!document.getElementById('picture')"):
                    have = js(PICTURE)
                    self.hold(where, "no more drills and base backups than there are", have["drills"] <= len(status["drills"]) and have["bases"] <= len(status["bases"]), have)
                print(f"  {where}: {state}: {js('document.querySelector(`h1`).textContent')}")


def main():
    program, shots, url = sys.argv[1], sys.argv[2], (sys.argv[3] if len(sys.argv) > 3 else None)
    problems, stop = samples.check() if not url else [], None
    page = open(serve.PAGE, encoding="utf-8").read()
    if len(page.encode()) > 40 << 10:
        problems.append(f"the page has {len(page.encode())} bytes, more than 40 KiB")
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "https://"):
        if word in page:
            problems.append(f"the page has {word}")
    browser = Browser(program)
    run = Run(browser, shots)
    try:
        if url:
            run.running(url if url.endswith("/") else url + "/")
        else:
            base, stop = serve.in_background()
            for name in samples.SAMPLES:
                before = len(run.problems)
                run.sample(base, name)
                print(f"  {'ok  ' if len(run.problems) == before else 'FAIL'} {name}")
            for name, part in (("hands", run.hands), ("silence", run.silence)):
                before = len(run.problems)
                part(base)
                print(f"  {'ok  ' if len(run.problems) == before else 'FAIL'} {name}")
    except Failed as error:
        run.problems.append(str(error))
    finally:
        browser.close()
        if stop:
            stop()
    problems += run.problems
    for problem in problems:
        print("FAIL: " + problem[:600], file=sys.stderr)
    print(f"{run.checks} checks, {len(problems)} failed" + (f"; screenshots are in {shots}" if shots else ""))
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
