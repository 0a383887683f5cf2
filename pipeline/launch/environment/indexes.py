"""Where packages come from: what people have configured for pip and uv.

A mirror, its certificates, a proxy: of these all are used, by both tools. Everything
else that can be configured (another target, another Python, a dry run, ...) would make
an installation be something else than it says, and is left out. Standard library only.
"""

from __future__ import annotations

import configparser
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

#: pip's options that say where packages are and how to get there.
PIP_OPTIONS = (
    *("index-url", "extra-index-url", "find-links", "no-index", "trusted-host"),
    *("cert", "client-cert", "proxy", "timeout", "default-timeout", "retries"),
    *("cache-dir", "no-cache-dir", "keyring-provider"),
)
#: uv's variables that do.
UV_VARIABLES = (
    *("UV_DEFAULT_INDEX", "UV_INDEX", "UV_FIND_LINKS", "UV_INSECURE_HOST"),
    *("UV_OFFLINE", "UV_NO_CACHE", "UV_CACHE_DIR", "UV_LINK_MODE"),
    *("UV_NATIVE_TLS", "UV_SYSTEM_CERTS", "UV_KEYRING_PROVIDER"),
    *("UV_HTTP_TIMEOUT", "UV_HTTP_CONNECT_TIMEOUT", "UV_HTTP_RETRIES"),
    *("UV_CONCURRENT_DOWNLOADS", "UV_CONCURRENT_INSTALLS", "UV_CONCURRENT_BUILDS"),
)
#: Variables of which Python must not hear: they change what is imported, or wait.
PYTHON_VARIABLES = (
    *("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONUSERBASE"),
    *("PYTHONPLATLIBDIR", "PYTHONEXECUTABLE", "PYTHONOPTIMIZE", "__PYVENV_LAUNCHER__"),
)
#: Files of settings that everybody on a machine has.
SYSTEM_PIP_FILES = ("/Library/Application Support/pip/pip.conf", "/etc/pip.conf")
SYSTEM_UV_FILES = ("/etc/uv/uv.toml",)
#: pip's options for uv's variables, where the values are of one kind.
_SAME = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
}
_UV_FILE_KEYS = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "allow-insecure-host": "UV_INSECURE_HOST",
    "cache-dir": "UV_CACHE_DIR",
    "no-cache": "UV_NO_CACHE",
    "offline": "UV_OFFLINE",
    "link-mode": "UV_LINK_MODE",
    "native-tls": "UV_NATIVE_TLS",
    "system-certs": "UV_SYSTEM_CERTS",
    "keyring-provider": "UV_KEYRING_PROVIDER",
}


def clean_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Environment variables without those that would redirect Python, pip or uv."""
    return {
        name: value
        for name, value in variables.items()
        if not name.startswith(("PIP_", "UV_", "CONDA_"))
        and name not in PYTHON_VARIABLES
        and name != "VIRTUAL_ENV"
    }


def pip_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Variables for a run of pip that reads no file of settings.

    Args:
      variables: of this process.
    """
    settings = _read_uv(variables)
    options = {
        option: " ".join(
            _url(item) for item in settings[name].replace(",", " ").split()
        )
        for option, name in _SAME.items()
        if settings.get(name)
    } | _read_pip(variables)
    pip_options = {f"PIP_{o.upper().replace('-', '_')}": v for o, v in options.items()}
    # This file name is the one with which pip reads no other file either.
    return clean_variables(variables) | pip_options | {"PIP_CONFIG_FILE": os.devnull}


def uv_settings(variables: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Variables and options for a run of uv with `--no-config`.

    Args:
      variables: of this process.
    """
    pip = _read_pip(variables)
    uv_variables = {
        name: pip[option] for option, name in _SAME.items() if pip.get(option)
    }
    if timeout := pip.get("timeout") or pip.get("default-timeout"):
        uv_variables["UV_HTTP_TIMEOUT"] = timeout.partition(".")[0]
    for option, name in (("cert", "SSL_CERT_FILE"), ("client-cert", "SSL_CLIENT_CERT")):
        if path := pip.get(option):
            uv_variables[name] = os.path.expanduser(path)
    if proxy := pip.get("proxy"):
        url = proxy if "://" in proxy else f"http://{proxy}"
        uv_variables |= {"HTTP_PROXY": url, "HTTPS_PROXY": url}
    uv_variables |= _read_uv(variables)
    links = uv_variables.pop("UV_FIND_LINKS", "").replace(",", " ").split()
    # pip passes over folders that do not exist, uv fails.
    if links := [
        x for x in links if "://" in x or os.path.isdir(os.path.expanduser(x))
    ]:
        uv_variables["UV_FIND_LINKS"] = ",".join(os.path.expanduser(x) for x in links)
    no_index = pip.get("no-index", "").lower() in ("1", "true", "yes", "on")
    return clean_variables(variables) | uv_variables, ["--no-index"] * no_index


def _url(index: str) -> str:
    """The URL of uv's `name=url`."""
    name, _, url = index.partition("=")
    return url if url and "://" not in name else index


def _read_pip(variables: Mapping[str, str]) -> dict[str, str]:
    """Settings of pip by option, from its files and variables."""
    options: dict[str, str] = {}
    for path in _pip_files(variables):
        parser = configparser.RawConfigParser()
        try:
            parser.read(path, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError):
            continue  # pip itself would fail; whoever has it broken gets no mirror.
        for section in ("global", "install"):
            if parser.has_section(section):
                options |= {k.replace("_", "-"): v for k, v in parser.items(section)}
    for name, value in variables.items():
        if name.startswith("PIP_"):
            options[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    return {o: " ".join(options[o].split()) for o in PIP_OPTIONS if options.get(o)}


def _pip_files(variables: Mapping[str, str]) -> Iterator[Path]:
    """Files of pip in its order: the last one has the last word."""
    named = variables.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return
    home = Path(variables.get("HOME") or os.path.expanduser("~"))
    for folder in (variables.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep):
        yield Path(folder, "pip", "pip.conf")
    yield from map(Path, SYSTEM_PIP_FILES)
    for folder in (".pip", "Library/Application Support/pip"):
        yield home / folder / "pip.conf"
    yield Path(variables.get("XDG_CONFIG_HOME") or home / ".config", "pip", "pip.conf")
    if prefix := variables.get("VIRTUAL_ENV") or variables.get("CONDA_PREFIX"):
        yield Path(prefix, "pip.conf")
    if named:
        yield Path(named)


def _read_uv(variables: Mapping[str, str]) -> dict[str, str]:
    """Settings of uv by variable, from its files and variables."""
    settings: dict[str, str] = {}
    for path in _uv_files(variables):
        try:
            content = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        for table in (content.get("pip", {}), content):
            settings |= _read_uv_table(table)
    for old, new in (
        ("UV_INDEX_URL", "UV_DEFAULT_INDEX"),
        ("UV_EXTRA_INDEX_URL", "UV_INDEX"),
    ):
        if variables.get(old):
            settings[new] = variables[old]
    for name, value in variables.items():
        secret = name.startswith("UV_INDEX_") and name.endswith(
            ("_USERNAME", "_PASSWORD")
        )
        if value and (secret or name in UV_VARIABLES):
            settings[name] = value
    return settings


def _uv_files(variables: Mapping[str, str]) -> Iterator[Path]:
    home = Path(variables.get("HOME") or os.path.expanduser("~"))
    if variables.get("UV_CONFIG_FILE"):
        yield Path(variables["UV_CONFIG_FILE"])
        return
    for folder in (variables.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep):
        yield Path(folder, "uv", "uv.toml")
    yield from map(Path, SYSTEM_UV_FILES)
    yield Path(variables.get("XDG_CONFIG_HOME") or home / ".config", "uv", "uv.toml")


def _read_uv_table(table: Mapping[str, Any]) -> dict[str, str]:
    settings = {}
    for key, name in _UV_FILE_KEYS.items():
        value = table.get(key)
        if isinstance(value, list):
            separator = "," if name == "UV_FIND_LINKS" else " "
            settings[name] = separator.join(map(str, value))
        elif isinstance(value, bool):
            settings |= {name: "1"} if value else {}
        elif isinstance(value, str):
            settings[name] = value
    extra = []
    for index in table.get("index", []):
        if index.get("default"):
            settings["UV_DEFAULT_INDEX"] = index["url"]
        elif not index.get("explicit"):
            extra.append(index["url"])
    return settings | ({"UV_INDEX": " ".join(extra)} if extra else {})
