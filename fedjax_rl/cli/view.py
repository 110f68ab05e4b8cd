"""`view`: results and studies as one page for a browser."""

from __future__ import annotations

import base64
import pathlib

from fedjax_rl.cli.report import PROGRAM


def view(arguments) -> int:
    """The command `view`."""
    from fedjax_rl import plotting
    from fedjax_rl.saving import results

    paths = [results.place(directory) for directory in arguments.directories]
    if not paths:
        raise ValueError("directories is empty; allowed: those that hold results, one or several")
    out = _out(arguments.out, paths)
    found, configurations, studies = {}, {}, []
    for path in dict.fromkeys(paths):
        study = _study(path)
        if study is not None:
            studies.append(study)
            continue
        found[str(path)] = _result(path)
        config = results.read_config(path) or {}
        config.pop("made_by", None)
        configurations[str(path)] = config
    if len(found) == 1:
        # Its name says nothing beside itself.
        title = next(iter(configurations.values()))
        title = " on ".join(title[n] for n in ("algorithm", "environment") if n in title)
        title = title or next(iter(found))
    else:
        title = ", ".join([*found, *(study["name"] for study in studies)])
    try:
        page = plotting.browsable(
            found, configurations=configurations, studies=studies, title=title
        )
    except ImportError as error:
        raise ValueError(str(error)) from error
    out.parent.mkdir(parents=True, exist_ok=True)
    results.write(out, page)
    print(f"{out}: {len(page) / 1e6:.1f} MB, for any browser; it needs no network")
    return 0


def _out(given: str | None, paths: list[pathlib.Path]) -> pathlib.Path:
    """The file to write: in the directory that is looked at, or here where there are several."""
    from fedjax_rl.saving import results

    if given is None:
        alone = len(paths) == 1 and paths[0].is_dir()
        return paths[0] / "view.html" if alone else pathlib.Path("view.html")
    out = results.place(given)
    if out.suffix not in (".html", ".htm") or out.is_dir():
        raise ValueError(f"out is {given}; allowed: a name that ends in .html")
    return out


def _result(path: pathlib.Path):
    """The result of a directory.

    Raises:
      ValueError: it holds none, with what is there instead.
    """
    from fedjax_rl.saving import results

    if not path.exists():
        raise ValueError(f"directories has {path}, which is not there; allowed: those of results")
    if path.is_dir() and not (path / "result.nc").is_file():
        if results.read_config(path) is not None:
            raise ValueError(
                f"directories has {path}, which holds no result yet; allowed: those that are "
                f"finished (`{PROGRAM} resume {path}` goes on)"
            )
        within = sorted(
            p.parent for name in ("result.nc", "summary.json") for p in path.glob(f"*/{name}")
        )
        words = (
            ", ".join(map(str, list(dict.fromkeys(within))[:4])) or "those of results or studies"
        )
        raise ValueError(f"directories has {path}, which holds no result; allowed: {words}")
    return results.load(path)


def _study(path: pathlib.Path) -> dict | None:
    """What a directory holds of a study: its claims and its pictures; None where it is of none."""
    from fedjax_rl.saving.directory import read_json

    summary = read_json(path / "summary.json") if path.is_dir() else None
    if summary is None or not isinstance(summary.get("targets"), list):
        return None
    pictures = {}
    for picture in sorted(path.rglob("*.png")):
        data = base64.b64encode(picture.read_bytes()).decode()
        pictures[str(picture.relative_to(path).with_suffix(""))] = f"data:image/png;base64,{data}"
    words = [str(summary[n]) for n in ("study", "preset", "scale") if n in summary]
    return {"name": ", ".join(words) or str(path), "summary": summary, "pictures": pictures}
