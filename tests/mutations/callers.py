"""Mutations of what stands before the layers: packing, tapes, parameters, streams."""

from __future__ import annotations

from tests.mutations.mutation import (
    PACKING,
    PARAMETERS,
    SEQUENCES,
    STEPPER,
    STREAM,
    TAPE,
    Mutation,
)

MUTATIONS = [
    # --- packing, tape, parameters ---------------------------------------------------------------
    Mutation(
        "each sequence one step too short",
        PACKING,
        "runs = np.arange(lengths.max())[:, np.newaxis] < lengths[order]",
        "runs = np.arange(lengths.max())[:, np.newaxis] < lengths[order] - 1",
    ),
    Mutation(
        "mask: holes come before the valid steps",
        PACKING,
        "np.argsort(~mask, axis=0",
        "np.argsort(mask, axis=0",
    ),
    Mutation(
        "mask: both directions hold what came from earlier",
        PACKING,
        "mask = self._mask.T[:, ::-1] if backwards else self._mask.T",
        "mask = self._mask.T",
    ),
    Mutation(
        "mask: only the last of a step's holes has a gradient",
        PACKING,
        "np.add.reduceat(padded[step, sequence, columns], first, axis=0)",
        "padded[step, sequence, columns][np.append(first[1:], len(before)) - 1]",
    ),
    Mutation(
        "mask: the gradient at a valid step is lost to its holes",
        PACKING,
        "columns] += sums",
        "columns] = sums",
    ),
    Mutation(
        "mask: a tape sees what the caller makes of it later",
        SEQUENCES,
        "mask=valid.copy()",
        "mask=valid",
    ),
    Mutation(
        "states sorted again instead of back",
        PACKING,
        "restored[:, self._order] = states",
        "restored[...] = states[:, self._order]",
    ),
    Mutation("ones past the ends", PACKING, "padded = np.zeros(", "padded = np.ones("),
    Mutation(
        "last chunk ends a step early",
        PACKING,
        "np.append(np.arange(0, longest, stride), longest)",
        "np.append(np.arange(0, longest, stride), longest - 1)",
    ),
    Mutation(
        "last block loses a sequence",
        PACKING,
        "np.minimum(cuts, self.batch), [self.batch]]",
        "np.minimum(cuts, self.batch), [self.batch - 1]]",
    ),
    Mutation(
        "tape not used up",
        TAPE,
        "saved, self._saved = self._saved, None",
        "saved = self._saved",
    ),
    Mutation("stale tape accepted", TAPE, "if version != self._version:", "if False:"),
    Mutation("another layer's tape accepted", TAPE, "tape._owner is not owner", "False"),
    Mutation("version not moved", PARAMETERS, "counter[0] += 1", "counter[0] += 0"),
    Mutation(
        "weights stay writable after an update",
        PARAMETERS,
        """        finally:
            self._freeze()
""",
        """        finally:
""",
    ),
    Mutation(
        "weights loaded feed on each other",
        PARAMETERS,
        "checked = {name: array.copy() for name, array in checked.items()}",
        "checked = dict(checked)",
    ),
    # --- streams ---------------------------------------------------------------------------------
    Mutation(
        "stream: h is written where it is read",
        STEPPER,
        "<real*>self.h + (1 - self.turn) * self.layers * size",
        "<real*>self.h + self.turn * self.layers * size",
    ),
    Mutation(
        "stream: the state counts as zero for ever",
        STEPPER,
        "self.turn, self.zero = 1 - self.turn, False",
        "self.turn = 1 - self.turn",
    ),
    Mutation(
        "stream: a state that is set counts as zero",
        STEPPER,
        "            self.zero = False\n",
        "",
    ),
    Mutation(
        "stream: a layer above sees no new x",
        STEPPER,
        "x, inner = h, hidden",
        "inner = hidden",
    ),
    Mutation(
        "stream: stale weights accepted",
        STEPPER,
        "if <void*>self.counter[0] is not <void*>self.version:",
        "if False:",
    ),
    Mutation("stream: open to two users at once", STEPPER, "self.busy = True", "pass"),
    Mutation(
        "stream: an error leaves it in use",
        STEPPER,
        """        finally:
            self.busy = False
        return out
""",
        """        except TypeError:
            raise
        self.busy = False
        return out
""",
    ),
    Mutation(
        "stream: rows of x_t unchecked",
        STEPPER,
        "view.ndim == 2 and view.shape[0] == rows and",
        "view.ndim == 2 and",
    ),
    Mutation(
        "stream: alignment and byte order unchecked",
        STEPPER,
        "fits = view.format[0] == kind and view.format[1] == 0",
        "fits = view.format[0] == kind or view.format[1] == kind",
    ),
    Mutation(
        "stream: read-only arrays written",
        STEPPER,
        "if not _look(target, &h, PyBUF_WRITABLE, self.kind, self.axis, self.hidden):\n"
        "                    target =",
        "if not _look(target, &h, 0, self.kind, self.axis, self.hidden):\n"
        "                    target =",
    ),
    Mutation(
        "stream: buffers are kept",
        STEPPER,
        "PyBuffer_Release(&x)",
        "pass",
    ),
    Mutation(
        "stream: the mode of the thread is not restored",
        STEPPER,
        "    fastlstm_flush_end(mode)\n",
        "",
    ),
    Mutation(
        "stream: the state that is read is no copy",
        STEPPER,
        "return self.h_array[self.turn].copy(), self.c_array.copy()",
        "return self.h_array[self.turn], self.c_array",
    ),
    Mutation(
        "stream: opened on weights older than its version",
        STREAM,
        "            version,\n",
        "            counter[0],\n",
    ),
]
