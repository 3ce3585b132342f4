"""Repeat one differential run: `python -m tests.property.repeat --seed 7 --steps 3000` or `... --hex STEPS`.

With `--rules first` the tape begins with version 1 of the rules, with `--rules switched` it also switches half way.

Every random failure of test_differential.py prints the command line that repeats it.
"""

import argparse
import sys

from smrx.engine import Engine
from tests.property.comparison import difference, joined, run, state_differences
from tests.property.flow import NEWEST, RULES, STEP_SIZE, Answered, Rules, build_answered, seeded_steps


def hex_command(steps: list[bytes], rules: Rules = NEWEST) -> str:
    """Return the command line that repeats a run of these steps."""
    return f"python -m tests.property.repeat --hex {b''.join(steps).hex() or '00'}{_rules_option(rules)}"


def seed_command(seed: int, count: int, rules: Rules = NEWEST) -> str:
    return f"python -m tests.property.repeat --seed {seed} --steps {count}{_rules_option(rules)}"


def _rules_option(rules: Rules) -> str:
    return next(f" --rules {name}" for name, known in RULES.items() if known == rules) if rules != NEWEST else ""


def disagreement(answered: Answered) -> str | None:
    """Return how the engine differs from the oracle that answered a tape; None if they agree."""
    tape = answered.tape
    engine, found = run(Engine(rules=tape.rules), tape, restore=True)
    report = difference(tape, joined(answered.results), found)
    if report:
        return report
    states = state_differences(answered.oracle, engine)
    return "\n".join([*states, "the tape:", tape.text()]) if states else None


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the engine with the oracle once.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--rules", choices=RULES, default="newest")
    parser.add_argument("--hex", help="the steps themselves, in place of a seed")
    options = parser.parse_args()
    if options.hex is not None:
        data = bytes.fromhex(options.hex)
        steps = [data[at : at + STEP_SIZE] for at in range(0, len(data), STEP_SIZE)]
    else:
        steps = seeded_steps(options.seed, options.steps)
    report = disagreement(build_answered(steps, RULES[options.rules]))
    print(report or "the engine and the oracle agree")
    return 1 if report else 0


if __name__ == "__main__":
    sys.exit(main())
