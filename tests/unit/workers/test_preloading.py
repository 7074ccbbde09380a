"""What a fork server imports for which workers."""

import pytest

from tether.config.settings import Settings
from tether_workers.preloading import PROCESS, SERVING, TRANSFORMERS, modules_for_models, modules_for_program


def with_models(*engines, **worker):
    models = [
        {"name": f"model-{number}", "engine": engine}
        | ({"source": "demo"} if engine == "transformers" else {})
        for number, engine in enumerate(engines)
    ]
    return Settings(models=models, worker=worker)


@pytest.mark.parametrize(
    ("engines", "modules"),
    [
        ((), (*PROCESS, *SERVING)),
        (("null",), (*PROCESS, *SERVING)),
        (("null", "transformers"), (*PROCESS, *SERVING, *TRANSFORMERS)),
    ],
)
def test_torch_is_imported_only_where_a_model_takes_it(engines, modules):
    assert modules_for_models(with_models(*engines)) == modules


def test_a_users_program_has_nothing_of_the_models_imported():
    assert modules_for_program(with_models("transformers")) == PROCESS


def test_without_a_fork_server_there_is_nothing_to_import():
    settings = with_models("transformers", fork_server=False)
    assert modules_for_models(settings) == modules_for_program(settings) == ()
