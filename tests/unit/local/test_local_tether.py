"""What `tether up` decides before it starts anything, its parts and logs, and the doctor's verdicts."""

import os
import subprocess
import sys

import pytest

from tether.config.loading import load_settings
from tether.config.settings import PresenceSettings, Settings
from tether.errors import AlreadyRunning, ConfigError, DiskFull
from tether.gateway.server.listening import listen, local_url
from tether.local import doctor
from tether.local.gpus import Gpu, class_of, find_gpus
from tether.local.log_files import FollowedFile, LogRotation, last_lines, rotate
from tether.local.model_choice import read_model, read_model_options
from tether.local.orchestrator_check import check_orchestrator
from tether.local.part_states import Part, PartState, Stack, after_event, born_at, read_stack, stack_to_text
from tether.local.set_up import runs_apart
from tether.local.settings import local_overrides, stopped_overrides, worker_places
from tether.local.state_folder import (
    FolderLock,
    StateFolder,
    check_room,
    choose_folder,
    holder_of,
    socket_path,
)
from tether.processes.child_events import ChildEnded, ChildReady, ChildStarted, ChildStopping
from tether.processes.restarts import startable, stoppable

AFTERS = {"redis": (), "gateway": ("redis",), "worker-1": ("gateway",), "worker-2": ("gateway",)}
DEMO = {"name": "tether-demo", "source": "demo"}


class TestOrder:
    def test_a_child_starts_when_those_before_it_were_ready(self):
        assert startable(AFTERS, (), ()) == ["redis"]
        assert startable(AFTERS, ("redis",), ()) == []
        assert startable(AFTERS, ("redis",), ("redis",)) == ["gateway"]
        assert startable(AFTERS, ("redis", "gateway"), ("redis", "gateway")) == ["worker-1", "worker-2"]

    def test_children_stop_before_those_on_which_they_stand(self):
        assert stoppable(AFTERS, list(AFTERS)) == ["worker-1", "worker-2"]
        assert stoppable(AFTERS, ["redis", "gateway", "worker-2"]) == ["worker-2"]
        assert stoppable(AFTERS, ["redis", "gateway"]) == ["gateway"]
        assert stoppable(AFTERS, ["redis"]) == ["redis"]


class TestFolder:
    def test_the_one_told_goes_before_the_environment_and_that_before_what_is_there(self, tmp_path):
        home, here = tmp_path / "home", tmp_path / "here"
        assert choose_folder(None, {}, here, home) == home / ".tether"
        (here / ".tether").mkdir(parents=True)
        assert choose_folder(None, {}, here, home) == here / ".tether"
        assert choose_folder(None, {"TETHER_DIR": "/x"}, here, home).as_posix() == "/x"
        assert choose_folder(tmp_path, {"TETHER_DIR": "/x"}, here, home) == tmp_path

    def test_it_is_made_for_its_owner_alone(self, tmp_path):
        folder = StateFolder(tmp_path / "a" / "b")
        folder.prepare()
        assert folder.path.stat().st_mode & 0o777 == 0o700
        assert folder.logs.stat().st_mode & 0o777 == 0o700

    def test_one_that_others_may_write_to_is_refused(self, tmp_path):
        tmp_path.chmod(0o770)
        with pytest.raises(ConfigError, match="chmod 700"):
            StateFolder(tmp_path).prepare()

    def test_one_of_somebody_else_is_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr("os.geteuid", lambda: 4711)
        with pytest.raises(ConfigError, match="belongs to user"):
            StateFolder(tmp_path).prepare()

    @pytest.mark.parametrize("name", ["a?b", "a#b", "a\nb"])
    def test_one_whose_path_no_address_can_hold_is_refused(self, tmp_path, name):
        with pytest.raises(ConfigError, match="--dir"):
            StateFolder(tmp_path / name).prepare()

    def test_a_file_in_its_place_is_refused(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(ConfigError, match="cannot be used"):
            StateFolder(tmp_path / "file").prepare()

    def test_little_room_warns_and_too_little_refuses(self, tmp_path):
        assert check_room(tmp_path, lambda _: 10**12) == ""
        assert "499 MB are free" in check_room(tmp_path, lambda _: 499_000_000)
        with pytest.raises(DiskFull, match=r"63 MB are free.*needs 64 MB"):
            check_room(tmp_path, lambda _: 63_000_000)

    def test_a_socket_path_that_is_too_long_is_put_elsewhere(self, tmp_path):
        short = StateFolder(tmp_path / "s")
        assert socket_path(short, {}) == (short.run / "redis.sock", None)
        long = StateFolder(tmp_path / ("x" * 100))
        path, made = socket_path(long, {"XDG_RUNTIME_DIR": str(tmp_path)})
        assert path.parent == made
        assert made.stat().st_mode & 0o777 == 0o700
        made.rmdir()

    def test_the_lock_names_its_holder_and_is_gone_with_it(self, tmp_path):
        folder = StateFolder(tmp_path)
        program = (
            "import sys; from pathlib import Path; from tether.local.state_folder import *\n"
            "lock = FolderLock.take(StateFolder(Path(sys.argv[1]))); print('held', flush=True); input()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout.readline() == b"held\n"
            assert holder_of(folder) == process.pid
            with pytest.raises(AlreadyRunning, match=f"process {process.pid}"):
                FolderLock.take(folder)
            process.kill()
        assert holder_of(folder) is None
        FolderLock.take(folder).release()
        assert not folder.lock.exists()


class TestModels:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("demo", DEMO),
            ("mine=demo", {"name": "mine", "source": "demo"}),
            ("hf:Org/Some-Model@v1", {"name": "some-model", "source": "hf:Org/Some-Model@v1"}),
            ("m=hf:org/name", {"name": "m", "source": "hf:org/name"}),
        ],
    )
    def test_a_source_is_read(self, text, expected, tmp_path):
        assert read_model(text, DEMO, tmp_path) == expected

    def test_a_folder_is_made_absolute(self, tmp_path):
        (tmp_path / "My Model").mkdir()
        (tmp_path / "My Model" / "config.json").write_text("{}")
        told = read_model("My Model", DEMO, tmp_path)
        assert told == {"name": "my-model", "source": str(tmp_path / "My Model")}

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("nowhere", "there is no folder"),
            ("", "there is no folder"),
            (".", "no config.json"),
            ("hf:name", "hf:org/name"),
            ("hf:a/b/c", "hf:org/name"),
            ("a b=demo", "is not a valid model name"),
            ("=demo", "is not a valid model name"),
        ],
    )
    def test_what_cannot_be_is_told(self, text, words, tmp_path):
        with pytest.raises(ConfigError, match=words):
            read_model(text, DEMO, tmp_path)

    def test_two_of_one_name_are_refused(self, tmp_path):
        with pytest.raises(ConfigError, match="two models are named 'x'"):
            read_model_options(["x=demo", "x=hf:a/b"], DEMO, tmp_path)


class TestGpus:
    def test_the_drivers_files_tell_them(self, tmp_path):
        assert find_gpus({}, tmp_path) == ()
        for number, model in enumerate(("NVIDIA H100 80GB HBM3", "NVIDIA GeForce RTX 4090")):
            folder = tmp_path / f"proc/driver/nvidia/gpus/0000:0{number}:00.0"
            folder.mkdir(parents=True)
            (folder / "information").write_text(f"Model: \t\t {model}\nIRQ: 5\n")
        both = (Gpu("0", "h100-80gb-hbm3"), Gpu("1", "geforce-rtx-4090"))
        assert find_gpus({}, tmp_path) == both
        assert find_gpus({"CUDA_VISIBLE_DEVICES": "1"}, tmp_path) == both[1:]
        assert find_gpus({"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == ()
        assert find_gpus({"CUDA_VISIBLE_DEVICES": "0,7,1"}, tmp_path) == both[:1]

    def test_without_them_the_devices_do(self, tmp_path):
        (tmp_path / "dev").mkdir()
        for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
            (tmp_path / "dev" / name).write_text("")
        assert find_gpus({}, tmp_path) == (Gpu("0", "gpu"), Gpu("1", "gpu"))

    def test_a_class_is_short_and_plain(self):
        assert len(class_of("NVIDIA " + "Very Long " * 10)) <= 32
        assert class_of("---") == "gpu"

    def test_there_is_a_worker_for_each(self):
        gpus = (Gpu("0", "h100"), Gpu("1", "h100"))
        settings = Settings()
        places = worker_places(settings, gpus, None)
        assert [place.environ for place in places] == [
            {"CUDA_VISIBLE_DEVICES": str(number), "TETHER_WORKER__GPU_CLASS": "h100"} for number in (0, 1)
        ]
        assert len(worker_places(settings, gpus, 3)) == 3
        assert len(worker_places(settings, (), None)) == 1
        assert worker_places(settings, gpus, 0) == worker_places(settings, (), 0) == ()
        (cpu,) = worker_places(settings, gpus, None, on_cpu=True)
        assert cpu.environ == {"CUDA_VISIBLE_DEVICES": ""}
        told = load_settings(environ={"TETHER_WORKER__GPU_CLASS": "mine"})
        assert "TETHER_WORKER__GPU_CLASS" not in worker_places(told, gpus, 1)[0].environ


def test_what_the_user_set_stays(tmp_path):
    folder, socket = StateFolder(tmp_path), tmp_path / "a b.sock"
    told = local_overrides(Settings(), folder, socket, [DEMO])
    assert load_settings(environ=told).redis.url.endswith("a%20b.sock?db=0")
    assert set(told) >= {"TETHER_DATABASE__URL", "TETHER_PRESENCE__IDENTITY_DIR", "TETHER_MODELS"}
    own = load_settings(environ={"TETHER_REDIS__URL": "redis://example.com/0"})
    assert "TETHER_REDIS__URL" not in local_overrides(own, folder, socket, None)


class TestParts:
    def test_events_change_their_part_alone(self):
        stack = Stack(1, "http://x", (Part("redis"), Part("gateway")))
        for event, state, restarts in (
            (ChildStarted("redis", 5), PartState.STARTING, 0),
            (ChildReady("redis", 5), PartState.READY, 0),
            (ChildEnded("redis", 5, "killed", 1.0), PartState.RESTARTING, 0),
            (ChildStarted("redis", 6), PartState.STARTING, 1),
            (ChildStopping("redis", 6), PartState.STOPPING, 1),
            (ChildEnded("redis", 6, "exit status 0", None), PartState.ENDED, 1),
        ):
            stack = after_event(stack, event, lambda pid: 7)
            assert (stack.parts[0].state, stack.parts[0].restarts) == (state, restarts)
            assert stack.parts[1] == Part("gateway")

    @pytest.mark.parametrize(("restart_in", "why"), [(0.0, "replaced"), (0.25, "exit status 0")])
    def test_what_was_asked_to_end_for_a_reload_is_replaced(self, restart_in, why):
        stack = Stack(1, "http://x", (Part("worker-1", PartState.STOPPING, 5, 7),))
        stack = after_event(stack, ChildEnded("worker-1", 5, "exit status 0", restart_in), lambda pid: 7)
        assert stack.parts == (Part("worker-1", PartState.RESTARTING, why=why),)

    def test_what_is_written_is_read(self, tmp_path):
        stack = Stack(1, "http://x", (Part("redis", PartState.READY, 5, 7, 2, "killed"),), "/tmp/tether-x")
        (tmp_path / "parts.json").write_text(stack_to_text(stack))
        assert read_stack(tmp_path / "parts.json") == stack

    @pytest.mark.parametrize(
        "text", ["", "[]", "{}", '{"v": 2}', '{"v": 1, "pid": "1", "url": "", "parts": []}', "[" * 100_000]
    )
    def test_what_nobody_wrote_is_nothing(self, tmp_path, text):
        (tmp_path / "parts.json").write_text(text)
        assert read_stack(tmp_path / "parts.json") is None

    def test_a_process_is_known_by_its_birth(self):
        assert born_at(os.getpid()) > 0
        assert born_at(2**22 + 5) == 0


class TestLogs:
    def test_the_last_lines_of_a_long_file_are_found(self, tmp_path):
        path = tmp_path / "a.log"
        path.write_text("".join(f"line {number}\n" for number in range(50_000)))
        assert last_lines(path, 2) == ["line 49998", "line 49999"]
        assert len(last_lines(path, 40_000)) == 40_000
        assert last_lines(path, 0) == []
        path.write_text("one\ntwo")
        assert last_lines(path, 5) == ["one", "two"]
        assert last_lines(tmp_path / "none.log", 5) == []

    def test_a_long_log_becomes_the_old_one_and_its_writer_goes_on(self, tmp_path):
        path = tmp_path / "a.log"
        with path.open("a") as writer:
            followed = FollowedFile.at_end(path)
            print("first", file=writer, flush=True)
            assert followed.new_lines() == ["first"]
            assert not rotate(path, max_bytes=100)
            assert rotate(path, max_bytes=3)
            print("2nd", file=writer, flush=True)
        assert (tmp_path / "a.log.1").read_text() == "first\n"
        assert path.read_text() == "2nd\n"
        assert list(followed.new_lines()) == ["2nd"]

    def test_rotation_ends_when_it_is_told(self, tmp_path):
        (tmp_path / "a.log").write_text("x" * 10)
        rotation = LogRotation(tmp_path, max_bytes=5)
        rotation.start()
        rotation.stop()
        assert (tmp_path / "a.log").read_text() == ""

    def test_a_line_is_shown_once_it_is_ended(self, tmp_path):
        path = tmp_path / "a.log"
        followed = FollowedFile(path)
        assert list(followed.new_lines()) == []
        path.write_text("a\nb")
        assert list(followed.new_lines()) == ["a"]
        path.write_text("a\nbc\n")
        assert list(followed.new_lines()) == ["bc"]


class TestDoctor:
    def test_an_old_python_fails(self):
        assert doctor.check_python((3, 10, 1)).verdict == "FAIL"
        assert doctor.check_python((3, 11, 0)).verdict == "ok"

    def test_missing_packages_fail_only_where_they_are_needed(self):
        for needed, verdict in ((True, "FAIL"), (False, "warn")):
            check = doctor.check_packages("worker", ("torch",), is_needed=needed, is_there=lambda _: False)
            assert (check.verdict, "pip install torch" in check.mend) == (verdict, True)

    def test_no_check_raises(self):
        def broken():
            raise RuntimeError("x")

        assert doctor.guarded("a", broken).verdict == "FAIL"

    def test_a_full_disk_fails_and_little_room_warns(self, tmp_path):
        folder = StateFolder(tmp_path / "new")
        assert doctor.check_disk(folder, lambda _: 1_000).verdict == "FAIL"
        assert doctor.check_disk(folder, lambda _: 100_000_000).verdict == "warn"
        assert doctor.check_disk(folder, lambda _: 10**12).verdict == "ok"

    def test_a_folder_that_others_may_write_to_fails(self, tmp_path):
        tmp_path.chmod(0o777)
        assert doctor.check_folder(StateFolder(tmp_path)).verdict == "FAIL"

    def test_without_node_there_is_a_warning_and_where_it_is_not_needed_none(self):
        settings = Settings()
        there = doctor.check_node(settings, os.environ)
        assert (there.verdict, there.mend) == ("ok", "")
        redis_alone = Settings(presence=PresenceSettings(adapters=("redis",)))
        assert doctor.check_node(redis_alone, {"PATH": ""}).verdict == "ok"

    def test_models_without_workers_are_warned_of(self):
        assert doctor.check_workers({"a": 1, "b": 0}).verdict == "warn"
        assert doctor.check_workers({"a": 1}).verdict == "ok"
        assert doctor.check_workers(None).verdict == "ok"

    def test_a_gateway_that_does_not_answer_or_lacks_something_fails(self):
        def check(health):
            return doctor.check_gateway(None, "http://user:hunter2@127.0.0.1:1", lambda _: health)

        assert check(None).verdict == "FAIL"
        assert "hunter2" not in check(None).found
        assert check({"status": "degraded", "database": "ok", "redis": "unavailable"}).verdict == "FAIL"
        assert check({"status": "ready", "database": "ok", "redis": "ok"}).verdict == "ok"

    @pytest.mark.parametrize(
        ("told", "verdict"), [("absent", "FAIL"), ("ok", "ok"), ("unknown", "ok"), (None, "ok")]
    )
    def test_that_no_orchestrator_runs_fails_and_is_no_fault_of_the_gateway(self, told, verdict):
        health = {"status": "degraded", "database": "ok", "redis": "ok", "orchestrator": told}
        answer = health if told else None
        check = check_orchestrator(None, "http://127.0.0.1:1", lambda _: answer)
        assert check.verdict == verdict
        assert ("tether orchestrator" in check.mend) is (verdict == "FAIL")
        assert doctor.check_gateway(None, "http://127.0.0.1:1", lambda _: health).verdict == "ok"

    def test_a_gpu_that_torch_does_not_see_is_warned_of(self, tmp_path):
        (tmp_path / "dev").mkdir()
        (tmp_path / "dev" / "nvidia0").write_text("")
        assert doctor.check_gpu({}, tmp_path, lambda: False).verdict == "warn"
        assert doctor.check_gpu({}, tmp_path, lambda: True).verdict == "ok"
        assert doctor.check_gpu({}, tmp_path, lambda: None).verdict == "ok"


def test_who_looks_after_a_stopped_tether_has_its_database(tmp_path):
    environ = {"TETHER_DIR": str(tmp_path)}
    assert stopped_overrides(Settings(), environ) == {}
    (tmp_path / "tether.db").touch()
    assert stopped_overrides(Settings(), environ) == {
        "TETHER_DATABASE__URL": f"sqlite:///{tmp_path}/tether.db"
    }
    assert stopped_overrides(Settings(), {}) == {}
    chosen = load_settings(environ={"TETHER_DATABASE__URL": "sqlite:///other.db"})
    assert stopped_overrides(chosen, environ) == {}


@pytest.mark.parametrize(
    ("answer", "verdict"), [({"status": "ready"}, "OK"), ({"status": "not ready"}, "OK"), (None, "FAIL")]
)
def test_a_port_that_a_gateway_of_these_settings_has_is_no_fault(answer, verdict):
    asked = []

    def readiness(url):
        asked.append(url)
        return answer

    with listen("0.0.0.0", 0) as taken:
        port = taken.getsockname()[1]
        settings = load_settings(
            environ={"TETHER_GATEWAY__PORT": str(port), "TETHER_GATEWAY__HOST": "0.0.0.0"}
        )
        assert doctor.check_port(settings, None, readiness).verdict is doctor.CheckStatus[verdict]
    assert asked == [f"http://127.0.0.1:{port}"]


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "127.0.0.1"), ("::", "[::1]"), ("fe80::1", "[fe80::1]"), ("a.example", "a.example")],
)
def test_the_address_for_clients_of_this_machine(host, url):
    assert local_url(host, 8470) == f"http://{url}:8470"


class TestPartsThatAreRunApart:
    """By `tether gateway`, `tether worker` and `tether orchestrator`: not by `tether up`."""

    @pytest.mark.parametrize(
        ("environ", "url", "answers", "is_apart"),
        [
            ({}, None, False, False),
            ({}, "http://127.0.0.1:1", False, True),
            ({"TETHER_REDIS__URL": "redis://127.0.0.1:1/0"}, None, False, True),
            ({"TETHER_DATABASE__URL": "sqlite:////tmp/one.db"}, None, False, True),
            ({}, None, True, True),
        ],
    )
    def test_are_known_by_what_is_set_or_by_a_gateway_that_answers(self, environ, url, answers, is_apart):
        settings = load_settings(environ=environ)
        health = {"status": "ready", "database": "ok", "redis": "ok"} if answers else None
        assert runs_apart(settings, None, url, lambda _: health) is is_apart

    def test_are_not_told_of_by_tether_up(self, tmp_path):
        settings = load_settings(environ={})
        checks = [
            doctor.check_redis_server(settings, is_apart=True),
            doctor.check_gateway(None, None, lambda _: None, "http://127.0.0.1:8470"),
            doctor.check_database(settings, StateFolder(tmp_path), is_apart=True),
        ]
        assert not any("tether up" in f"{check.found}{check.mend}" for check in checks)
        assert "tether gateway starts one" in checks[1].found
        assert str(tmp_path) not in checks[2].found
