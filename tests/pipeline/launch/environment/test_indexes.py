"""Which settings of pip and uv an installation hears of."""

import os

import pytest

from pipeline.launch.environment import indexes
from pipeline.launch.environment.indexes import (
    clean_variables,
    pip_variables,
    uv_settings,
)


@pytest.fixture
def variables(tmp_path, monkeypatch):
    monkeypatch.setattr(indexes, "SYSTEM_PIP_FILES", ())
    monkeypatch.setattr(indexes, "SYSTEM_UV_FILES", ())
    return {"HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path), "PATH": "/bin"}


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


HOSTILE = {
    "PIP_USER": "1",
    "PIP_TARGET": "/elsewhere",
    "PIP_DRY_RUN": "1",
    "PIP_PREFIX": "/elsewhere",
    "PIP_PYTHON": "/elsewhere/python",
    "PIP_REQUIRE_VIRTUALENV": "1",
    "PIP_NO_BINARY": ":all:",
    "UV_PYTHON": "3.9",
    "UV_SYSTEM_PYTHON": "1",
    "UV_PROJECT_ENVIRONMENT": "/elsewhere",
    "UV_NO_VERIFY_HASHES": "1",
    "UV_COMPILE_BYTECODE": "1",
    "PYTHONPATH": "/elsewhere",
    "PYTHONHOME": "/elsewhere",
    "VIRTUAL_ENV": "/elsewhere",
    "CONDA_PREFIX": "/elsewhere",
}


def test_what_would_redirect_an_installation_is_left_out(variables):
    allowed = {*variables, "PIP_CONFIG_FILE"}
    assert set(pip_variables(variables | HOSTILE)) == allowed
    assert set(uv_settings(variables | HOSTILE)[0]) == set(variables)
    assert clean_variables(variables | HOSTILE) == variables


def test_a_mirror_of_pip_is_used_by_both(variables, tmp_path):
    write(
        tmp_path / ".config" / "pip" / "pip.conf",
        "[global]\nindex-url = https://mirror/simple\nuser = true\ntimeout = 60\n"
        "trusted-host =\n    mirror\n    other\n"
        "[install]\ntarget = /elsewhere\nextra-index-url = https://extra/simple\n",
    )
    pip = pip_variables(variables | {"PIP_CERT": "/ca.pem"})
    assert pip["PIP_INDEX_URL"] == "https://mirror/simple"
    assert pip["PIP_EXTRA_INDEX_URL"] == "https://extra/simple"
    assert pip["PIP_TRUSTED_HOST"] == "mirror other"
    assert pip["PIP_CERT"] == "/ca.pem"
    assert pip["PIP_CONFIG_FILE"] == os.devnull
    assert not {"PIP_USER", "PIP_TARGET"} & pip.keys()
    uv, options = uv_settings(variables | {"PIP_CERT": "/ca.pem"})
    assert uv["UV_DEFAULT_INDEX"] == "https://mirror/simple"
    assert uv["UV_INDEX"] == "https://extra/simple"
    assert uv["UV_INSECURE_HOST"] == "mirror other"
    assert uv["UV_HTTP_TIMEOUT"] == "60"
    assert uv["SSL_CERT_FILE"] == "/ca.pem"
    assert options == []


def test_a_variable_has_the_last_word(variables, tmp_path):
    write(tmp_path / ".pip" / "pip.conf", "[global]\nindex_url = https://file/simple\n")
    variables["PIP_INDEX_URL"] = "https://variable/simple"
    assert pip_variables(variables)["PIP_INDEX_URL"] == "https://variable/simple"
    variables["PIP_CONFIG_FILE"] = os.devnull
    del variables["PIP_INDEX_URL"]
    assert "PIP_INDEX_URL" not in pip_variables(variables)


def test_a_mirror_of_uv_is_used_by_both(variables, tmp_path):
    write(
        tmp_path / ".config" / "uv" / "uv.toml",
        'offline = true\n[[index]]\nname = "a"\nurl = "https://a/simple"\n'
        'default = true\n[[index]]\nurl = "https://b/simple"\n'
        '[pip]\ntarget = "/elsewhere"\nfind-links = ["/elsewhere"]\n',
    )
    uv, _ = uv_settings(variables)
    assert uv["UV_DEFAULT_INDEX"] == "https://a/simple"
    assert uv["UV_INDEX"] == "https://b/simple"
    assert uv["UV_OFFLINE"] == "1"
    assert pip_variables(variables)["PIP_INDEX_URL"] == "https://a/simple"
    variables |= {"UV_INDEX": "c=https://c/simple", "UV_INDEX_C_PASSWORD": "secret"}
    uv, _ = uv_settings(variables)
    assert uv["UV_INDEX"] == "c=https://c/simple"
    assert uv["UV_INDEX_C_PASSWORD"] == "secret"
    assert pip_variables(variables)["PIP_EXTRA_INDEX_URL"] == "https://c/simple"


def test_folders_of_wheels(variables, tmp_path):
    variables |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": f"{tmp_path} /not/there"}
    uv, options = uv_settings(variables)
    assert uv["UV_FIND_LINKS"] == str(tmp_path)
    assert options == ["--no-index"]
    assert pip_variables(variables)["PIP_NO_INDEX"] == "1"


def test_broken_settings_are_no_settings(variables, tmp_path):
    write(tmp_path / ".config" / "pip" / "pip.conf", "no section\n")
    write(tmp_path / ".config" / "uv" / "uv.toml", "= =\n")
    assert set(pip_variables(variables)) == {*variables, "PIP_CONFIG_FILE"}
    assert uv_settings(variables) == (variables, [])
