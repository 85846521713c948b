"""The layout contract written out one position at a time, to test the fast code against.

A position is a dict; nothing is shared with ``unimm.document`` but the special numbers.
"""

from unimm.document import IGNORE, NO_CODE, NULL_CODE


def plain_document(document, objective, special, dropped=frozenset()):
    """Positions of a document, in order.

    Args:
        document: tokenised.
        objective: configuration; only what its own positions are is asked of it.
        special: ids.
        dropped: hidden parts.
    """
    out, time, segment = [], 0, -1

    def put(text=special.pad, code=NO_CODE, at=None, head=None, is_context=True):
        out.append(
            dict(
                input_ids=text,
                code_ids=code,
                labels=IGNORE,
                position_ids=at,
                segment_ids=segment,
                is_context=is_context,
                head=head,
                block_ids=out[-1]["block_ids"] + 1 if out else 0,
            )
        )

    def put_text(token, *, is_new):
        nonlocal time, segment
        segment += is_new
        put(text=token, at=(time, time, time), head="text")
        time += 1

    def put_picture(found, origin, *, is_target):
        nonlocal time, segment
        segment += 1
        first = out[-1]["block_ids"] + 1
        for code, block, (t, row, column), label, is_context in found:
            at = (origin + t, origin + row, origin + column)
            put(code=code, at=at, head=objective.name, is_context=is_context)
            out[-1]["block_ids"] = first + block
            if is_target:
                out[-1]["labels"] = label
            time = max(time, *(x + 1 for x in at))

    put_text(special.bos, is_new=True)
    is_visible = True  # whether what comes next may be predicted
    for i, part in enumerate(document.parts):
        is_hidden, is_last = i in dropped, i == len(document.parts) - 1
        if part.is_text:
            for token in part.text_ids.tolist():
                if not is_hidden:
                    out[-1]["labels"] = token
                put_text(special.null if is_hidden else token, is_new=False)
            is_visible = not is_hidden
            continue
        if part.is_drawn and not (i > 0 and i - 1 in dropped):
            out[-1]["labels"] = special.boi
        codes = part.tokens.codes
        clean = [
            (NULL_CODE if is_hidden else int(codes[row, column]), (0, row, column))
            for row in range(codes.shape[0])
            for column in range(codes.shape[1])
        ]
        is_target = part.is_drawn and not is_hidden
        put_text(special.boi, is_new=True)
        if is_target and objective.is_own_context:  # next token: <boi> belongs to the picture
            boi = out[-1]
            boi["head"], boi["labels"] = objective.name, clean[0][0]
            following = [code for code, _ in clean[1:]] + [IGNORE]
            segment -= 1  # <boi> and the codes are one segment
            put_picture(
                [(c, k, at, following[k], True) for k, (c, at) in enumerate(clean)],
                time,
                is_target=True,
            )
        else:
            origin = time
            if is_target:
                put_picture(_targets(part.tokens, objective), origin, is_target=True)
            if not (is_target and document.is_open and is_last):
                causal = objective.is_own_context
                copy = [
                    (c, k if causal else 0, at, IGNORE, True) for k, (c, at) in enumerate(clean)
                ]
                put_picture(copy, origin, is_target=False)
        is_visible = not is_hidden
        if not (document.is_open and is_last):
            put_text(special.eoi, is_new=True)
    if not document.is_open and is_visible:
        out[-1]["labels"] = special.eos
    return out


def _targets(tokens, objective):
    """Code, block, position, label and visibility of what an objective predicts in place."""
    side = tokens.codes.shape[0]
    if objective.name == "next_scale":
        grids = list(enumerate(tokens.scale_codes))
    elif objective.name == "masked":
        grids = [(0, tokens.codes)]
    else:
        patch = objective.denoiser.patch_size if objective.name == "diffusion" else 1
        grids = [(0, tokens.codes.new_zeros(side // patch, side // patch))]
    out = []
    for block, grid in grids:
        n = len(grid)
        for row in range(n):
            for column in range(n):
                at = (0, (2 * row + 1) * side // (2 * n), (2 * column + 1) * side // (2 * n))
                out.append((NO_CODE, block, at, int(grid[row, column]), False))
    return out
