"""What a client is answered: checked, and written down, so that two servers' answers can be laid side by side."""

import zlib

SHOWN_CHARACTERS_MAX = 200


def shown(value):
    """A value as it is written down: a long one by its beginning, its length and its checksum."""
    text = repr(value)
    if len(text) <= SHOWN_CHARACTERS_MAX:
        return text
    return f"{text[:SHOWN_CHARACTERS_MAX]}... ({len(text)} characters, CRC {zlib.crc32(text.encode()):08x})"


def expect(what, got, wanted):
    """The answer is known."""
    if got != wanted or type(got) is not type(wanted):
        raise SystemExit(f"{what}: {shown(got)} and not {shown(wanted)}")
    print(f"{what}: {shown(got)}")


def expect_within(what, got, low, high):
    """The answer is a number that depends on when it was asked for."""
    if not low <= got <= high:
        raise SystemExit(f"{what}: {got!r} is not from {low} to {high}")
    print(f"{what}: from {low} to {high}")


def expect_error(what, kind, text, call):
    """There is no answer but an error of the client's library, which begins with this text."""
    try:
        got = call()
    except kind as error:
        if not str(error).startswith(text):
            raise SystemExit(f"{what}: {error} and not {text}") from error
        print(f"{what}: {type(error).__name__} {text}")
    else:
        raise SystemExit(f"{what}: {shown(got)} and no error")
