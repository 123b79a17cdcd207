"""The command line: `bincount VERB key=value …`. Finds the verb, composes its configuration, tells errors.

Help and mistakes are answered without importing torch.
"""

import importlib
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence

from bincount import __version__
from bincount.errors import BadInput, complaint, exit_code, near, nearest

#: verb: (what it does, worked commands)
VERBS = {
    "prepare": (
        "photos + records -> shards + index",
        [
            "bincount prepare                                        # drawn bins, in data/drawn",
            "bincount prepare source=folder source.images=photos source.metadata=records out=data/bins",
            "bincount prepare source=folder source.images=photos source.labels=labels.csv out=data/bins",
            "bincount prepare source=s3 source.bucket=s3://aft-vbi-pds source.list=file_list.json out=s3://mine/bins",
            "bincount prepare source=folder source.images=null source.metadata=records out=tables",
            "bincount prepare source=shards out=their-shards               # index shards made elsewhere",
        ],
    ),
    "explore": (
        "a data set -> what is in it; new photos: have they changed?",
        [
            "bincount explore data.root=data/bins                    # figures, and a page: explore.html",
            "bincount explore data.root=s3://mine/bins out=bins.html",
            'bincount explore data.root=data/bins sql="select count, count(*) from photos group by 1"',
            'bincount explore data.root=data/bins sql="from items where weight_lb > 10" out=heavy.csv',
            "bincount explore photos=DIR against=latest          # are they like the photos it learnt from?",
            "bincount explore photos=DIR against=latest fail=true   # exit code 1 if not",
            "bincount explore kept=RUN/kept against=RUN         # is what `bincount serve` saw? (serve.keep)",
        ],
    ),
    "train": (
        "shards -> a run that counts",
        [
            "bincount train",
            "bincount train data.root=data/bins model=resnet18 data.image_size=128 optimizer.lr=0.01",
            "bincount train data.fraction=0.1 trainer.max_epochs=1     # a quick trial",
            "bincount train resume=latest trainer.max_epochs=20",
            "bincount train -m optimizer.lr=0.001,0.01 model=resnet18,resnet34     # each of the four",
            "bincount train -m sweep=tpe sweep.trials=30 optimizer.lr='tag(log,interval(0.0001,0.1))'",
            "bincount train -m resume=runs/default/A-sweep sweep.trials=40         # more of them",
        ],
    ),
    "evaluate": (
        "a run + a split -> figures, pictures, report",
        [
            "bincount evaluate",
            "bincount evaluate run=latest split=val",
            "bincount evaluate run=[runs/default/A,runs/default/B]     # side by side",
            "bincount evaluate predictions=counts.csv labels=labels.csv     # answers made elsewhere",
            "bincount evaluate predictions=answers.parquet data.root=data/bins split=test",
        ],
    ),
    "predict": (
        "a run + photos -> a CSV of counts",
        [
            "bincount predict photos=DIR out=counts.csv",
            "bincount predict run=runs/default/A photos=photos/*.jpg",
        ],
    ),
    "audit": (
        "photos + expected quantities -> the bins to check",
        [
            "bincount audit photos=DIR expected=expected.csv",
            "bincount audit photos=DIR expected=records audit.budget=100    # the 100 to check first",
            "bincount audit predictions=counts.csv expected=expected.csv    # photos counted before",
            "bincount audit planted.times=200                               # how well does it find errors?",
        ],
    ),
    "serve": (
        "a run -> answers over HTTP, and a page for people",
        [
            "bincount serve                                         # then open http://127.0.0.1:8080",
            "bincount serve run=runs/default/A serve.host=0.0.0.0 serve.port=9000",
            "bincount serve serve.workers=4 serve.error_rate=0.02",
        ],
    ),
    "export": (
        "a run -> one file, ONNX or torch.export, checked",
        [
            "bincount export                                         # counter.onnx, of the latest run",
            "bincount export run=runs/default/A out=bins.onnx",
            "bincount export format=torch out=bins.pt2",
            "bincount predict run=bins.onnx photos=DIR                # counts as the run does",
        ],
    ),
    "doctor": (
        "is all there? each line is ok, or says what to do",
        [
            "bincount doctor",
            "bincount doctor data.root=data/bins run=runs/default/A",
            "bincount doctor data.root=s3://mine/bins out=s3://mine/parts",
        ],
    ),
}

#: What may be given to a verb beside keys, by its name.
OPTIONS = {"multirun": "--multirun", "cfg": "--cfg job", "help": "--help"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 for a failure, 2 for bad input."""
    return answered(_run, argv)


def answered(run: Callable[[list[str]], None], argv: Sequence[str] | None) -> int:
    """Run a program on its words, None for those of the command line; tell errors and give the exit code."""
    try:
        run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return 128 + signal.SIGPIPE
        if os.environ.get("BINCOUNT_DEBUG") == "1":
            raise
        print(f"bincount: {complaint(error)}", file=sys.stderr)
        return exit_code(error)
    return 0


def _nobody_reads() -> bool:
    """Whether the reader of the output has closed it, as `head` does; the rest of it then goes nowhere."""
    asked = select.poll()
    asked.register(sys.stdout, select.POLLOUT)
    if not any(told & select.POLLERR for _, told in asked.poll(0)):
        return False
    # Python writes what is left when it ends, and would complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _run(words: list[str]) -> None:
    if words[:1] == ["help"] and len(words) > 1:
        words = [*words[1:], "--help"]
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return
    if words[0] == "--version":
        print(f"bincount {__version__}")
        return
    verb, rest = words[0], words[1:]
    if verb == "completion":
        from bincount import completion

        print(completion.answer(rest), end="")
        return
    if verb not in VERBS:
        raise BadInput(_no_verb(verb))
    if "-h" in rest or "--help" in rest:
        print(_verb_help(verb, rest))
        return
    show, sweeping = _take_cfg(rest), _take_multirun(verb, rest)
    for word in rest:
        if word.startswith("-"):
            raise BadInput(f"{word}: there is no such option: {_instead(verb, word)}")
    from bincount.compose import compose, typed

    if sweeping:
        from bincount import sweep

        if not show:
            sweep.sweep(rest)
            return
    cfg = sweep.first_trial(rest) if sweeping else compose(verb, rest)
    if show:
        from omegaconf import OmegaConf

        print(OmegaConf.to_yaml(cfg), end="")
        return
    config = typed(verb, cfg)
    getattr(importlib.import_module(f"bincount.{verb}"), verb)(config)


def _no_verb(word: str) -> str:
    """What to do about a first word that is no verb."""
    if word.startswith("-"):
        meant = near(word, ("--help", "--version"))
        hint = f"did you mean {meant}?" if meant else "write a verb, --help or --version"
        return f"{word}: there is no such option: {hint}"
    if "=" in word:
        return f"{word}: write the verb first, one of {', '.join(VERBS)}"
    meant = near(word, [*VERBS, "completion"])
    return f"{word}: there is no such verb: {f'did you mean {meant}?' if meant else nearest(word, VERBS)}"


def _instead(verb: str, word: str) -> str:
    """What to write in place of an option that there is not."""
    from bincount.words import groups, keys

    key, equals, value = word.lstrip("-").partition("=")
    if not equals and (meant := near(key, OPTIONS)):
        return f"did you mean {OPTIONS[meant]}?"
    known = {*groups(verb), *keys(verb)}
    if meant := near(key, known) if equals else key if key in known else None:
        return f"write {meant}={value or 'VALUE'}"
    return "write key=value, -m, --cfg job or --help"


def _take_cfg(words: list[str]) -> bool:
    """Take `--cfg job` out of the words."""
    for place, word in enumerate(words):
        if word == "--cfg=job" or words[place : place + 2] == ["--cfg", "job"]:
            del words[place : place + (1 if "=" in word else 2)]
            return True
        if word.startswith("--cfg"):
            raise BadInput("--cfg shows the job's configuration: write --cfg job")
    return False


def _take_multirun(verb: str, words: list[str]) -> bool:
    """Take `-m` out of the words."""
    for option in ("-m", "--multirun"):
        if option in words:
            if verb != "train":
                raise BadInput(f"{option}: only `bincount train` tries several values in turn")
            words.remove(option)
            return True
    return False


def _help() -> str:
    verbs = "\n".join(f"  {verb:<9} {told}" for verb, (told, _) in VERBS.items())
    return f"""bincount {__version__}: counts the items in a warehouse bin from one photo.

usage: bincount VERB [key=value …]

{verbs}

  bincount VERB --help       worked commands and the keys of a verb
  bincount VERB --cfg job    the configuration that would be used
  bincount train -m key=a,b  a run with each value in turn, or as sweep=tpe finds them; ranked
  bincount completion bash   what lets the Tab key complete all of this; or zsh
  bincount --version

start here:
  bincount prepare           # draw 6,000 bins
  bincount train             # ResNet34, a few minutes on two cores
  bincount predict photos=DIR"""


def _verb_help(verb: str, words: Sequence[str]) -> str:
    """Worked commands, then the groups with their options and the keys with their comments, from `conf/`.

    Of each group the option's keys that the words choose.
    """
    from bincount.words import chosen, conf_dir, groups, options

    told, examples = VERBS[verb]
    lines = [f"bincount {verb}: {told}", "", *(f"  {example}" for example in examples)]
    by_default = groups(verb)
    if by_default:
        lines += ["", "groups (the first is chosen unless said; add GROUP=OPTION to see its keys):"]
        for group, default in by_default.items():
            others = [option for option in options(group) if option != default]
            lines.append(
                f"  {group}={' | '.join([default, *others] if default else others or ['(none yet)'])}"
            )
    said = {group: option for group, option in chosen(verb, words).items() if option in options(group)}
    shown = [f"{group}/{option}.yaml" for group, option in (by_default | said).items() if option]
    for name in (f"{verb}.yaml", *shown):
        text = (conf_dir() / name).read_text(encoding="utf-8")
        lines += ["", f"{name.removesuffix('.yaml')}:", *_keys_of(text)]
    return "\n".join(lines)


def _keys_of(yaml: str) -> list[str]:
    """The lines of a YAML file after its defaults list and leading comment."""
    lines, inside = [], False
    for line in yaml.splitlines():
        inside = line.startswith("defaults:") or (inside and line.startswith(" "))
        if not inside and line.strip() and not line.startswith(("#", "name:")):
            lines.append(f"  {line}")
    return lines
