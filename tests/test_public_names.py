"""The public names: a promise, held here against what the package really offers."""

import doctest
import importlib
import pydoc
from importlib.metadata import version

import pytest

import atrous

SUBMODULES = "crf data errors evaluation grid inference labels losses models training viz".split()


@pytest.mark.parametrize("name", atrous.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(atrous, name)
    assert value.__doc__
    assert value.__doc__.strip()


def test_the_public_names_are_frozen() -> None:
    """A change here is a line in the changelog."""
    frozen = """
        ASPP AtrousError Backbone Bilateral DeepLabV3PlusDecoder DenseCRF Gaussian Grid Inference LabelSet Sample
        Segmentation convolutionalize create_model evaluate export_model load load_recipe open_dataset predict
        register_backbone register_dataset register_loss register_model resample set_output_stride train wrap
    """
    assert atrous.__all__ == frozen.split()


def test_public_names_are_listed_once_and_in_order() -> None:
    assert atrous.__all__ == sorted(set(atrous.__all__))
    assert sorted(atrous._HOMES) == atrous.__all__
    assert set(atrous.__all__) <= set(dir(atrous))


@pytest.mark.parametrize("name", SUBMODULES)
def test_submodules_are_reachable_after_import_atrous(name: str) -> None:
    assert getattr(atrous, name).__name__.endswith(name)
    assert name in dir(atrous)


def test_version_and_unknown_names() -> None:
    assert atrous.__version__ == version("atrous")
    with pytest.raises(AttributeError, match="no attribute 'segment_everything'"):
        atrous.segment_everything  # noqa: B018


def test_help_shows_what_there_is() -> None:
    page = pydoc.plain(pydoc.render_doc(atrous))
    for name in atrous.__all__:
        assert name in page


@pytest.mark.parametrize("name", atrous.__all__)
def test_the_example_of_every_public_name_runs(name: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    value = getattr(atrous, name)
    module = importlib.import_module(value.__module__)
    finder = doctest.DocTestFinder(recurse=False)
    examples = [test for test in finder.find(value, name, module=module) if test.examples]
    assert examples, f"the docstring of atrous.{name} has no example (>>> ...)"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in examples:
        result = runner.run(test)
        assert result.failed == 0, f"the example of atrous.{name} fails; run it with python -m doctest"
