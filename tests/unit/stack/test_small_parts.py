"""Ports, secrets, files, logs and pools of the embedded stack, without starting it."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from perennial.errors import PortTaken, StackError
from perennial.stack import logs
from perennial.stack.files import exclusive, is_held, read_json, write_private
from perennial.stack.home import Home
from perennial.stack.pools import wanted_pools
from perennial.stack.ports import Ports, chosen_ports, require_free
from perennial.stack.secrets import read_or_make, signing_keys

REPOSITORY = Path(__file__).resolve().parents[3]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestPorts:
    def test_defaults(self) -> None:
        assert chosen_ports({}) == Ports(postgres=5455, airflow=8080, mlflow=5500, data_plane=8600)

    def test_a_setting_of_its_own_beats_the_base_which_beats_the_file(self) -> None:
        file = {"port_base": 7000, "airflow_port": 7777}
        assert chosen_ports({}, file) == Ports(postgres=7000, airflow=7777, mlflow=7002, data_plane=7003)
        environment = {"PERENNIAL_PORT_BASE": "9000", "PERENNIAL_PG_PORT": "5432"}
        assert chosen_ports(environment, file) == Ports(postgres=5432, airflow=9001, mlflow=9002, data_plane=9003)

    def test_the_file_has_the_variables_names_in_small_letters_and_an_older_one(self) -> None:
        own = {"pg_port": 5999, "airflow_port": 5998, "mlflow_port": 5997, "data_plane_port": 5996}
        assert chosen_ports({}, own) == Ports(postgres=5999, airflow=5998, mlflow=5997, data_plane=5996)
        assert chosen_ports({}, {"pg_port": 5999, "port_base": 7000}).postgres == 5999
        assert chosen_ports({}, {"postgres_port": 5999}).postgres == 5999
        assert chosen_ports({}, {"pg_port": 5998, "postgres_port": 5999}).postgres == 5998

    @pytest.mark.parametrize("value", ["http", "0", "70000", "-1"])
    def test_what_is_no_port_is_named(self, value: str) -> None:
        with pytest.raises(StackError, match="PERENNIAL_MLFLOW_PORT"):
            chosen_ports({"PERENNIAL_MLFLOW_PORT": value})

    def test_two_parts_on_one_port_are_refused(self) -> None:
        with pytest.raises(StackError, match="share a port"):
            chosen_ports({"PERENNIAL_MLFLOW_PORT": "8080"})

    def test_a_taken_port_names_setting_and_part(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            with pytest.raises(PortTaken, match=f"{port} for mlflow.*PERENNIAL_MLFLOW_PORT"):
                require_free(
                    Ports(postgres=1, airflow=2, mlflow=port, data_plane=3) if os.geteuid() == 0 else Ports(mlflow=port)
                )


class TestSecrets:
    def test_made_once_and_private(self, tmp_path: Path) -> None:
        home = Home(root=tmp_path / "home")
        home.make()
        first = read_or_make(home)
        assert read_or_make(home).logins() == first.logins()
        assert mode(home.root) == 0o700
        assert mode(home.secrets_file) == 0o600
        values = list(json.loads(home.secrets_file.read_text()).values())
        assert len(set(values)) == len(values)
        assert min(map(len, values)) >= 16
        assert first.login_admin not in repr(first)

    def test_a_secret_that_a_later_version_needs_is_added(self, tmp_path: Path) -> None:
        home = Home(root=tmp_path)
        before = read_or_make(home)
        kept = json.loads(home.secrets_file.read_text())
        del kept["jwt_secret"]
        home.secrets_file.write_text(json.dumps(kept))
        after = read_or_make(home)
        assert after.jwt_secret != before.jwt_secret
        assert after.login_admin == before.login_admin

    def test_wide_folders_are_tightened(self, tmp_path: Path) -> None:
        root = tmp_path / "home"
        root.mkdir(mode=0o755)
        Home(root=root).make()
        assert mode(root) == 0o700

    def test_signing_key_is_p256_sealed_and_kept(self, tmp_path: Path) -> None:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

        home = Home(root=tmp_path)
        home.make()
        private, public = signing_keys(home, "pass word")
        assert mode(private) == 0o600
        text = private.read_bytes()
        with pytest.raises(TypeError):
            load_pem_private_key(text, password=None)
        key = load_pem_private_key(text, password=b"pass word")
        assert key.curve.name == "secp256r1"  # type: ignore[union-attr]
        assert key.public_key() == load_pem_public_key(public.read_bytes())
        assert signing_keys(home, "pass word")[0].read_bytes() == text

    def test_a_lost_public_key_is_made_again_from_the_private_one(self, tmp_path: Path) -> None:
        home = Home(root=tmp_path)
        home.make()
        private, public = signing_keys(home, "pass word")
        sealed, opened = private.read_bytes(), public.read_bytes()
        public.unlink()
        assert signing_keys(home, "pass word") == (private, public)
        assert (private.read_bytes(), public.read_bytes()) == (sealed, opened)
        public.unlink()
        for damage in (lambda: None, lambda: private.write_text("no key")):
            damage()
            kept = private.read_bytes()
            with pytest.raises(StackError, match=r"signing\.pem cannot be opened"):
                signing_keys(home, "another word")
            assert private.read_bytes() == kept
            assert not public.exists()


class TestFiles:
    def test_written_whole_and_private(self, tmp_path: Path) -> None:
        path = tmp_path / "state.json"
        write_private(path, '{"a": 1}')
        assert mode(path) == 0o600
        assert read_json(path) == {"a": 1}
        assert [item.name for item in tmp_path.iterdir()] == ["state.json"]

    def test_damage_is_named(self, tmp_path: Path) -> None:
        path = tmp_path / "state.json"
        path.write_text("{")
        with pytest.raises(StackError, match=r"state\.json is damaged"):
            read_json(path)
        assert read_json(tmp_path / "none.json") == {}

    def test_a_lock_dies_with_its_holder(self, tmp_path: Path) -> None:
        path = tmp_path / "lock"
        script = f"""
            import sys, time
            from pathlib import Path
            from perennial.stack.files import exclusive
            with exclusive(Path({str(path)!r}), wait=False) as mine:
                print(mine, flush=True)
                time.sleep(60)
        """
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "include")}
        holder = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True, env=environment
        )
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert is_held(path)
        holder.kill()
        holder.wait()
        assert not is_held(path)
        with exclusive(path, wait=False) as mine:
            assert mine


class TestLogs:
    def test_a_large_log_is_rotated_under_its_writer(self, tmp_path: Path) -> None:
        log = tmp_path / "scheduler.log"
        with log.open("ab", buffering=0) as writer:
            writer.write(b"old line\n" * 100)
            logs.rotate(tmp_path, largest=500)
            writer.write(b"new line\n")
        assert log.read_bytes() == b"new line\n"
        assert (tmp_path / "scheduler.log.1").stat().st_size == 900
        assert mode(tmp_path / "scheduler.log.1") == 0o600

    def test_three_generations_are_kept(self, tmp_path: Path) -> None:
        log = tmp_path / "a.log"
        for number in range(6):
            log.write_text(str(number) * 10)
            logs.rotate(tmp_path, largest=5)
        kept = {path.name: path.read_text()[:1] for path in tmp_path.iterdir() if path.stat().st_size}
        assert kept == {"a.log.1": "5", "a.log.2": "4", "a.log.3": "3"}

    def test_tail(self, tmp_path: Path) -> None:
        log = tmp_path / "a.log"
        log.write_text("\n".join(map(str, range(100))))
        assert logs.tail(log, 2) == "98\n99"
        assert logs.tail(tmp_path / "none.log") == ""


class TestPools:
    def test_the_shipped_file(self) -> None:
        assert {pool["name"]: pool["slots"] for pool in wanted_pools(REPOSITORY / "airflow_settings.yaml")} == {
            "gpu": 2,
            "cpu": 4,
        }

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "airflow: {}",
            "a: [",
            "airflow:\n  pools:\n  - pool_name: a",
            "airflow:\n  pools:\n  - pool_name: a\n    pool_slot: x",
        ],
    )
    def test_another_shape_is_named(self, tmp_path: Path, text: str) -> None:
        file = tmp_path / "airflow_settings.yaml"
        file.write_text(text)
        with pytest.raises(StackError, match="is not understood"):
            wanted_pools(file)
