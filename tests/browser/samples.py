#!/usr/bin/env python3
"""Makes the samples of /status that the page is tested with: samples/*.json.

    samples.py           writes them
    samples.py --check   fails if they are not what this would write, or if their `archive` lacks what docs/JSON.md says

No clock and no chance is in them: each run writes the same.
"""
import json
import math
import os
import re
import sys
from datetime import datetime, timezone

HERE = os.path.dirname(os.path.abspath(__file__))
NOW = int(datetime(2026, 11, 28, 3, 12, 44, tzinfo=timezone.utc).timestamp() * 1e6) + 123456
S, M, H, D = 10**6, 60 * 10**6, 3600 * 10**6, 86400 * 10**6
ONE, TWO, THREE = (f"3e11fa47-71ca-11e1-9e33-c80aa94295{n}" for n in ("62", "77", "91"))
ARCHIVE = "0d7cbe5e-8a7a-4a38-9d0c-6c8f1a51b2aa"
MIB = 1 << 20


def text(us):
    return datetime.fromtimestamp(us / 1e6, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.") + f"{us % 1000000:06d}Z"


def at(number, offset):
    return {"file": f"binlog.{number:06d}", "offset": offset}


def ranged(a, z, first, last, before, end):
    return {"from": at(first, 0), "to": at(last, 81234), "first_commit": a and text(a), "last_commit": z and text(z),
            "executed_before": before, "executed": end}


def server(uuid, ranges, gaps=(), lag=0.8, files=77, since=None):
    return {"server": uuid, "restorable_from": since and text(since), "durable": ranges[-1]["to"] if ranges else None,
            "lag": {"from": "beacon", "server_position": ranges[-1]["to"], "as_of_us": NOW - 20 * S, "bytes": 0, "seconds": lag},
            "ranges": ranges, "gaps": list(gaps), "files": files, "chunks": files * 61,
            "raw_bytes": files * 998 * MIB, "stored_bytes": files * 262 * MIB}


def base(us, uuid=ONE, engine="clone", took=412 * S):
    return {"id": datetime.fromtimestamp(us / 1e6, timezone.utc).strftime("%Y%m%dT%H%M%SZ") + "-7f3a", "engine": engine,
            "server": uuid, "started_us": us, "finished_us": us + took, "stored_bytes": 41 * 1024 * MIB}


def drill(us, ok=True, seconds=731.4, problem=None):
    return {"started_us": us, "ok": ok, "seconds": seconds, "problem": problem}


def told(one, of):
    return one and {"started": text(one["started_us"]), "ok": one["ok"], "problem": one["problem"], "base": of,
                    "reached": text(one["started_us"] - 5 * S), "seconds": one["seconds"]}


def history(count=120, lag=lambda i: 0.6 + 0.3 * math.sin(i / 9), rate=lambda i: 2.1e6 + 1.4e6 * math.sin(i / 40), hole=()):
    points = []
    for i in range(count):
        gone = i in hole
        received = max(0.0, rate(i))
        points.append({"at_us": NOW - (count - 1 - i) * 30 * S, "lag_seconds": None if gone else round(lag(i), 3),
                       "received_per_second": 0.0 if gone else round(received, 1),
                       "durable_per_second": 0.0 if gone else round(received * (0.97 + 0.03 * math.sin(i)), 1)})
    return points


def status(servers, bases=(), drills=(), gaps=(), points=None, actions=(), agent=None, objectives=True, verify=True, agents=None):
    bases, drills = sorted(bases, key=lambda one: one["started_us"]), sorted(drills, key=lambda one: one["started_us"])
    newest, last = (bases or [None])[-1], (drills or [None])[-1]
    held = [one for one in drills if one["ok"]]
    of = newest and newest["id"]
    end = servers[-1]["durable"] if servers else None
    document = {
        "schema": 1, "now_us": NOW,
        "agent": {
            "id": "main", "version": "0.1.0", "started_us": NOW - 9 * D, "state": "streaming", "ready": True, "since_us": NOW - 3 * D,
            "server": servers[-1]["server"] if servers else ONE, "server_version": "8.4.3", "durable": end, "durable_commit_us": NOW - 800000,
            "server_position": end and {**end, "offset": end["offset"] + 5120}, "asked_us": NOW - 700000, "lag_seconds": 0.8, "lag_bytes": 5120,
            "received_bytes": 1811939328000, "durable_bytes": 1811939322880, "transactions": 481516234, "semi_sync": None, "spool": None,
            "purge_margin_files": 12, "purge_horizon_seconds": 531000.0, "gaps": len(gaps), "interruptions": 2, "trouble": None,
            "base_due_us": NOW + 23 * H - 12 * M, "prune_due_us": NOW + 2 * H,
            "verify": {"at_us": NOW - 26 * H, "ok": True, "problem": None} if verify else None},
        "archive_as_of_us": NOW - 4 * M,
        "archive": {
            "schema": 1, "url": "s3://backups-eu/binvault/shop", "archive": ARCHIVE, "created": text(NOW - 400 * D), "servers": servers,
            "recorded_gaps": list(gaps),
            "protection": {
                "bases": len(bases),
                "newest_base": newest and {"id": of, "started": text(newest["started_us"]), "position": at(76, 5120), "bytes": 118 * 1024 * MIB},
                "verified": told(held[-1], of) if held else None, "last_drill": told(last, of),
                "objectives": [
                    {"name": "rpo", "wanted_seconds": 60.0, "measured_seconds": 0.8, "met": True, "by": "what the server has and the archive has not"},
                    {"name": "rto", "wanted_seconds": 3600.0, "measured_seconds": last and last["seconds"],
                     "met": last and last["seconds"] <= 3600, "by": "the newest drill" if last else "no drill yet"}] if objectives else []},
            "agents": agents if agents is not None else [beacon("main", servers[-1]["server"] if servers else ONE, end)]},
        "bases": bases, "drills": drills, "history": history() if points is None else points, "actions": list(actions)}
    document["agent"].update(agent or {})
    return document


def beacon(name, uuid, end, stopped=False, us=NOW - 20 * S, semi_sync=None, spool=None):
    return {"format": 1, "agent": name, "server": uuid, "server_version": "8.4.3", "durable": end, "server_position": end, "as_of_us": us,
            "oldest_file": "binlog.000001", "stopped": stopped, "version": "0.1.0", "semi_sync": semi_sync, "spool": spool,
            "verified": {"at_us": NOW - 26 * H, "problem": None}}


def action(severity, words, hint=None):
    return {"severity": severity, "text": words, "hint": hint}


def gap(us, kind, problem, ends, goes_on, missing, lost, behind, server=ONE, with_=ONE, loss=True):
    return {"at": text(us), "agent": "main", "kind": kind, "problem": problem, "server": server, "ends": ends, "goes_on_with": with_,
            "goes_on_at": goes_on, "missing": missing, "lost": lost, "is_loss": loss, "base_behind": behind}


def days(count, first=0, uuid=ONE):
    """Base backups, one a day at 3:00, the newest today's."""
    return [base(NOW - 12 * M - 44 * S - 123456 - n * D, uuid) for n in range(first, first + count)]


# When the oldest of 14 daily base backups was finished.
FIRST = NOW - 13 * D - 12 * M - 44 * S - 123456 + 412 * S


def healthy():
    one = server(ONE, [ranged(NOW - 14 * D - 3 * H, NOW - 5 * M, 1, 77, None, f"{ONE}:1-90412")], since=FIRST)
    points = history(720, lambda i: 0.6 + 0.3 * math.sin(i / 9) + (3.4 * math.exp(-((i - 430) / 6) ** 2)),
                     lambda i: 2.1e6 + 1.4e6 * math.sin(i / 90) + 4e5 * math.sin(i / 5))
    return status([one], days(14), [drill(NOW - 2 * D - 5 * H)], points=points)


def fresh():
    one = server(ONE, [ranged(NOW - 26 * M, NOW - 2 * M, 1, 2, None, f"{ONE}:1-412")], files=2)
    return status([one], points=history(52), verify=False, actions=[
        action("now", "There is no base backup: nothing can be restored.", "binvault -c /etc/binvault/binvault.toml base"),
        action("soon", "No base backups are scheduled.", "Set `base.schedule = \"0 3 * * *\"` in the configuration, and grant what `binvault check` tells."),
        action("info", "No restore was ever tried.", "binvault -c /etc/binvault/binvault.toml drill --identity binvault.key")],
        agent={"started_us": NOW - 26 * M, "since_us": NOW - 26 * M, "interruptions": 0, "base_due_us": None, "prune_due_us": None,
               "received_bytes": 210 * MIB, "durable_bytes": 210 * MIB - 5120, "transactions": 412})


def gap_without_base():
    lost = gap(NOW - 7 * H, "purged", "binlog.000061 and 3 more were purged before they were archived", at(60, 81234), at(65, 0),
               f"{ONE}:70001-74410", "", False)
    ranges = [ranged(NOW - 14 * D, NOW - 9 * H, 1, 60, None, f"{ONE}:1-70000"),
              ranged(NOW - 7 * H - 20 * M, NOW - 5 * M, 65, 77, f"{ONE}:1-74410", f"{ONE}:1-90412")]
    one = server(ONE, ranges, [{"file": "binlog.000065", "problem": "archiving began anew with this file", "recorded": True}])
    return status([one], days(13, 1), [drill(NOW - 9 * D), drill(NOW - 2 * D)], [lost], actions=[
        action("now", "No base backup was taken behind the gap of 27 Nov 20:12 UTC.", "binvault -c /etc/binvault/binvault.toml base"),
        action("soon", "Binlogs are purged before they are archived.", "SET PERSIST binlog_expire_logs_seconds = 604800;")])


def interrupted():
    one = server(ONE, [ranged(NOW - 14 * D - 3 * H, NOW - 3 * M - 9 * S, 1, 77, None, f"{ONE}:1-90412")], since=FIRST)
    trouble = {"at_us": NOW - 4 * S, "text": "the server does not answer: connection refused (db1.example:3306)",
               "hint": "start the server, or correct source.url; archiving goes on by itself"}
    return status([one], days(14), [drill(NOW - 2 * D - 5 * H)], points=history(240, hole=set(range(150, 190)) | set(range(233, 240))), actions=[
        action("now", "Archiving is interrupted: " + trouble["text"], trouble["hint"])],
        agent={"state": "connecting", "ready": False, "since_us": NOW - 3 * M - 9 * S, "trouble": trouble, "durable_commit_us": NOW - 3 * M - 9 * S,
               "asked_us": NOW - 3 * M - 8 * S, "lag_seconds": 189.0, "lag_bytes": None, "interruptions": 3})


def sync(mode, protected, since, reason=None, ack=None, uncovered=0, lapses=(), ever=True):
    return {"mode": mode, "protected": protected, "since_us": since, "reason": reason, "last_ack_us": ack, "ever": ever, "uncovered": uncovered,
            "lapses": list(lapses)}


def lapse(since, to, reason, commits, gtids):
    return {"from_us": since, "to_us": to, "reason": reason, "commits": commits, "gtids": gtids}


def protected_spool():
    one = server(ONE, [ranged(NOW - 14 * D - 3 * H, NOW - 5 * M, 1, 77, None, f"{ONE}:1-90412")], since=FIRST)
    spool = {"dir": "/var/spool/binvault", "objects": 3, "bytes": 43200000, "oldest_us": NOW - 3 * S}
    word = sync("spool", True, NOW - 6 * H, None, NOW - 20000, 412,
                [lapse(NOW - 6 * H - 212 * S, NOW - 6 * H, "a commit has waited for 3000 ms", 412, f"{ONE}:9001-9412")])
    agents = [beacon("main", ONE, at(77, 81234), semi_sync=word, spool=spool), beacon("second", ONE, at(76, 4711), True, NOW - 3 * D)]
    return status([one], days(14), [drill(NOW - 2 * D - 5 * H)], agent={"semi_sync": word, "spool": spool}, agents=agents)


def lapsed():
    one = server(ONE, [ranged(NOW - 14 * D - 3 * H, NOW - 5 * M, 1, 77, None, f"{ONE}:1-90412")], since=FIRST)
    word = sync("store", False, NOW - 11 * M, "a commit has waited for 3000 ms", NOW - 11 * M, 20412,
                [lapse(NOW - 6 * H - 212 * S, NOW - 6 * H, "a commit has waited for 3000 ms", 412, f"{ONE}:9001-9412"),
                 lapse(NOW - 2 * H, NOW - 2 * H + 9 * S, "the connection to the server broke", 0, ""),
                 lapse(NOW - 11 * M, None, "a commit has waited for 3000 ms", 20000, None)])
    return status([one], days(14), [drill(NOW - 9 * D), drill(NOW - 2 * D, False, 95.2, "CHECK TABLE shop.orders: index is corrupted")],
                  points=history(240, lambda i: 0.7 if i < 215 else 0.7 + (i - 215) * 1.9), actions=[
                      action("soon", "Commits are not protected: the store is slow.", None)],
                  agent={"semi_sync": word, "lag_seconds": 46.3, "lag_bytes": 91 * MIB})


def failover():
    one = server(ONE, [ranged(NOW - 14 * D - 3 * H, NOW - 5 * D - 2 * H, 1, 58, None, f"{ONE}:1-60000")], files=58, since=FIRST)
    two = server(TWO, [ranged(NOW - 5 * D - 3 * H, NOW - 30 * H, 1, 17, f"{ONE}:1-59000", f"{ONE}:1-60000,{TWO}:1-9000")], files=17, since=FIRST + 9 * D)
    three = server(THREE, [ranged(NOW - 30 * H - 4 * M, NOW - 5 * M, 41, 46, f"{ONE}:1-60000,{TWO}:1-8900", f"{ONE}:1-60000,{TWO}:1-8998,{THREE}:1-3300")], files=6, since=FIRST + 13 * D)
    lost = gap(NOW - 29 * H, "failover", "the server that took over lacks transactions that are archived", at(17, 81234), at(41, 4711), "",
               f"{TWO}:8999-9000", True, TWO, THREE)
    return status([one, two, three], days(8, 6) + days(3, 2, TWO) + days(1, 0, THREE), [drill(NOW - 9 * D), drill(NOW - 2 * D)], [lost],
                  actions=[action("info", "2 transactions of the old primary are in the archive and not on the new one.",
                                  f"binvault -c /etc/binvault/binvault.toml restore --head {TWO} --to latest --dry-run")])


def year():
    ranges = [ranged(NOW - 366 * D, NOW - 200 * D, 1, 2400, None, f"{ONE}:1-70000"),
              ranged(NOW - 199 * D, NOW - 5 * M, 2402, 5100, f"{ONE}:1-71000", f"{ONE}:1-190412")]
    lost = gap(NOW - 199 * D, "purged", "binlog.002401 was purged before it was archived", at(2400, 81234), at(2402, 0), f"{ONE}:70001-71000", "", True)
    drills = [drill(NOW - n * 7 * D - 5 * H, n != 20, 700 + n * 7.5, None if n != 20 else "the server did not start: disk full") for n in range(52)]
    one = server(ONE, ranges, [{"file": "binlog.002402", "problem": "archiving began anew with this file", "recorded": True}], files=5100, since=FIRST - 185 * D)
    bases = [dict(one, engine="mysqldump" if i % 7 == 0 else "clone") for i, one in enumerate(days(365))]
    return status([one], bases, drills, [lost], points=history(240))


def empty():
    document = status([], points=[], verify=False, agent={
        "state": "connecting", "ready": False, "started_us": NOW - 3 * S, "since_us": NOW - 3 * S, "server": None, "server_version": None, "durable": None,
        "durable_commit_us": None, "server_position": None, "asked_us": None, "lag_seconds": None, "lag_bytes": None, "received_bytes": 0,
        "durable_bytes": 0, "transactions": 0, "purge_margin_files": None, "purge_horizon_seconds": None, "interruptions": 0, "base_due_us": None,
        "prune_due_us": None})
    return {**document, "archive": None, "archive_as_of_us": None}


def hostile():
    bad = "<img src=x onerror=\"document.title='HACKED';window.hacked=1\">"
    script = "</script><script>window.hacked=1</script>"
    one = server(bad, [ranged(NOW - 3 * D, NOW - 5 * M, 1, 7, None, f"{ONE}:1-4000")], [{"file": bad, "problem": script, "recorded": False}])
    one["ranges"][0]["to"]["file"] = bad
    word = sync(bad, False, NOW - 11 * M, script, None, 5, [lapse(NOW - 11 * M, None, bad, 5, bad)])
    document = status([one], [dict(base(NOW - 2 * D), id=bad, engine=script, server=bad)], [drill(NOW - D, False, 5.0, bad)], [
        gap(NOW - D, bad, script, {"file": bad, "offset": 4}, {"file": script, "offset": 4}, bad, script, True, bad, bad)],
        points=history(30), actions=[action("now", bad, bad), action(bad, script, "run `" + script + "` now"), action("info", "x" * 300, "y" * 300)],
        agent={"id": bad, "version": script, "server": bad, "server_version": bad, "semi_sync": word, "trouble": {"at_us": NOW - S, "text": bad, "hint": script},
               "spool": {"dir": bad, "objects": 1, "bytes": 5, "oldest_us": NOW - H}, "verify": {"at_us": NOW - D, "ok": False, "problem": bad},
               "durable": {"file": bad, "offset": 4}})
    document["archive"]["url"] = bad
    document["archive"]["protection"]["objectives"][0].update(name=bad, by=script, met=False)
    return document


SAMPLES = {"healthy": healthy, "fresh": fresh, "gap-without-base": gap_without_base, "interrupted": interrupted, "protected-spool": protected_spool,
           "lapsed": lapsed, "failover": failover, "year": year, "empty": empty, "hostile": hostile}


def written(document):
    """One line for each element of the long lists: short, and a change can be read."""
    lines = []
    for key, value in document.items():
        if isinstance(value, list) and value:
            told = "[\n  " + ",\n  ".join(json.dumps(one) for one in value) + "]"
        elif isinstance(value, dict):
            told = "{\n  " + ",\n  ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()) + "}"
        else:
            told = json.dumps(value)
        lines.append(f"{json.dumps(key)}: {told}")
    return "{" + ",\n".join(lines) + "}\n"


def fields(value, path=""):
    """All fields of a document, as docs/JSON.md writes them; those below a null are not known."""
    if isinstance(value, list):
        for one in value:
            yield from fields(one, path + "[]")
    elif isinstance(value, dict):
        for key, one in value.items():
            name = f"{path}.{key}" if path else key
            yield name
            yield from fields(one, name)


def documented(path):
    with open(path, encoding="utf-8") as file:
        section = file.read().split("## `binvault status --json`", 1)[1].split("\n## ", 1)[0]
    names = re.findall(r"^\| `([^`]+)` \|", section, re.M)
    return {name for name in names if not name.endswith("[]")}


def check():
    wrong = []
    wanted, have = documented(os.path.join(HERE, "..", "..", "docs", "JSON.md")), set()
    for name, make in SAMPLES.items():
        document = make()
        have |= set(fields(document["archive"]))
        with open(os.path.join(HERE, "samples", name + ".json"), encoding="utf-8") as file:
            if file.read() != written(document):
                wrong.append(f"samples/{name}.json is not what samples.py makes: run samples.py")
    wrong += [f"docs/JSON.md has {name}, the samples have not" for name in sorted(wanted - have)]
    return wrong


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        problems = check()
        print("\n".join(problems), file=sys.stderr)
        sys.exit(bool(problems))
    for name, make in SAMPLES.items():
        with open(os.path.join(HERE, "samples", name + ".json"), "w", encoding="utf-8") as file:
            file.write(written(make()))
