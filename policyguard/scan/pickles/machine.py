"""Interprets a pickle as Python would, on abstract values, and runs nothing.

One machine reads one pickle, from a cursor, to its STOP.

    pickle = *( opcode argument ) STOP

Source: Lib/pickle.py and Modules/_pickle.c of CPython 3.11, opcode by opcode; PEP 307, 3154 and 574.
"""

from __future__ import annotations

from policyguard.scan.pickles.opcodes import TABLE, Stopped
from policyguard.scan.pickles.stack import CHECKED, Broken, Dialect, PickleStack, kind_of
from policyguard.scan.pickles.values import Abstract
from policyguard.scan.source import LineTooLong

_STEP = 2_048


class Machine(PickleStack):
    """The abstract stack, marks and memo of one pickle, and the loop that reads opcodes."""

    __slots__ = ()

    def run(self) -> Abstract:
        """Read the pickle to its STOP and return its value.

        The findings contain what was read even if this raises.

        Raises:
            Broken: an opcode or argument is malformed, or the stack runs empty.
            Truncated: the source ended before STOP.
            Exhausted: a limit was reached.
        """
        cursor, table = self.cursor, TABLE
        try:
            while True:
                self.opcodes += 1
                if self.opcodes % _STEP == 0:
                    self.findings.spend_opcodes(_STEP)
                entry, start = table[cursor.take(1)[0]], cursor.position - 1
                if entry is None:
                    raise Broken("a byte that is no opcode")
                entry[1](self, entry[0])
                if start < self.frame_end < cursor.position and entry[0] != "BUILD":
                    self.leave_frame(entry[0])
        except Stopped:
            for pair in +self.unfollowed:
                # What is judged by its calls went somewhere other than a call.
                self.findings.add(CHECKED[pair], f"{'.'.join(pair)} is passed on as a value")
            value = self.pop()
            if self.stack or self.marks:
                self.findings.add("ckpt.pickle_state", "values left behind at the end")
            return value
        except LineTooLong:
            raise Broken("a line longer than is read") from None
        except (IndexError, ValueError, OverflowError, UnicodeError):
            raise Broken("a malformed argument") from None


__all__ = ["Broken", "Dialect", "Machine", "kind_of"]
