#!/usr/bin/env python3
"""Writes src/tokenizer/entities.c: the named character references of the HTML standard
(https://html.spec.whatwg.org/multipage/named-characters.html), taken from Python's
html.entities.html5, and the upper-case spellings that ftfy accepts besides (rule of
ftfy.chardata._build_html_entities, recomputed here).

    python3 tools/make_entities.py > src/tokenizer/entities.c
"""
import html
import html.entities


def c_string(text):
    """A C string literal of text's UTF-8; every byte that is not plain ASCII as octal."""
    out = ""
    for byte in text.encode("utf-8"):
        plain = 0x20 <= byte < 0x7F and chr(byte) not in '"\\?'
        out += chr(byte) if plain else f"\\{byte:03o}"
    return f'"{out}"'


def table(name, entries):
    print(f"const dk_entity {name}[] = {{")
    for key, text in sorted(entries.items(), key=lambda e: e[0].encode("utf-8")):
        print(f"    {{{c_string(key)}, {c_string(text)}}},")
    print("};")
    print(f"const size_t {name}_count = sizeof({name}) / sizeof({name}[0]);")


def upper_case():
    found = {}
    for name, text in html.entities.html5.items():
        if name.endswith(";") and name == name.lower():
            upper = name.upper()
            if html.unescape("&" + upper) == "&" + upper:
                found[upper] = text.upper()
    return found


print("/* Written by tools/make_entities.py from the HTML standard's list of named character")
print("   references (as Python's html.entities.html5 holds it): names without '&', sorted by")
print("   bytes. The second table holds the upper-case spellings that ftfy also accepts. */")
print("// clang-format off")
print('#include "tokenizer/entities.h"')
print()
table("dk_entities_html5", html.entities.html5)
print()
table("dk_entities_upper", upper_case())
