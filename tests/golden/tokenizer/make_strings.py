#!/usr/bin/env python3
"""Writes strings.json: what the reference libraries make of many strings.

    python make_strings.py            # needs ftfy 6.3, tokenizers 0.23, sentencepiece 0.2

Each entry: the text; "clean", the result of WanPipeline's prompt_clean (ftfy.fix_text, html.unescape
twice, strip, white space to single spaces); "json", ids of the tokenizers library for the folders'
tokenizer.json; "spm", ids of sentencepiece for their spiece.model, where text between special tokens
is encoded by itself. All ids are of the text as it is, not of the cleaned one, and end with </s>.
"mojibake" marks texts that ftfy's fix_encoding changes.
"""
import html
import json
import os
import random
import re

import ftfy
import sentencepiece
import tokenizers

HERE = os.path.dirname(os.path.abspath(__file__))
SPECIAL = {"<pad>": 0, "</s>": 1, "<unk>": 2}


def prompt_clean(text):
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return re.sub(r"\s+", " ", text).strip()


def is_mojibake(text):
    plain = ftfy.fix_text(text, fix_encoding=False)
    return ftfy.fix_text(text) != plain or ftfy.fix_encoding(text) != text


def spm_ids(model, specials, text):
    pattern = "|".join(re.escape(s) for s in sorted(specials, key=len, reverse=True))
    ids = []
    for part in re.split(f"({pattern})", text):
        if part in specials:
            ids.append(specials[part])
        elif part:
            ids += model.encode(part)
    return ids + [1]


WRITTEN = [
    "", " ", "  ", "a", " a", "a ", "  a  b  ", "A cat walks on the grass, realistic style.",
    "Blurry, low quality, distorted, watermark, text, logo", "UPPER lower MiXeD 0123456789",
    "tab\tnew\nline\r\ncarriage\rreturn\x0bvertical\x0cform", "\n\n\n", "line one\n\n  line two  \n",
    "naïve façade Ångström Œuvre straße İstanbul ıI ſ", "e\u0301 vs é, o\u0308\u0304, a\u0328\u0301, \u0301alone",
    "ﬁne ﬂow eﬃcient oﬀ ﬅ ﬆ Ĳ ĳ ŉ Ǆ ǅ ǆ Ǉ ǈ ǉ Ǌ ǋ ǌ Ǳ ǲ ǳ", "ｆｕｌｌ ｗｉｄｔｈ　ＴＥＸＴ！？（）［］｛｝～", "ﾊﾝｶｸ ｶﾞｷﾞｸﾞ ﾊﾟﾋﾟ ﾡﾢ ￠￡￢￣￤￥￦",
    "“curly” ‘single’ ‚low‛ „low‟ ʼmodifier", "dash – — ― ‐ ‑ ‒ minus − hyphen-minus", "ellipsis … · • ‣ ※",
    "½ ¼ ¾ ⅓ ① ② ⑳ Ⅷ ⅷ ㎏ ㎡ ™ ℃ № ℡ ㍿ ﷺ ﷽", "10³ x² H₂O µm Ω K Å", "\u00a0nbsp\u00a0\u00a0x\u2007y\u202fz\u3000w\u1680q\u205f",
    "zero\u200bwidth\u200cnon\u200djoin\u2060er\ufeffbom\u00adsoft", "\u200e\u200fltr rtl \u202aembed\u202c \u2066iso\u2069 \u206anational\u206f",
    "control\x01\x02\x07\x08\x0e\x1b\x1f\x7fend", "\x1b[31mred\x1b[0m \x1b[1;32mgreen\x1b[m \x1b[", "\x1c\x1d\x1e\x1f sep",
    "\u0085next\u0085line \u2028ls\u2029ps", "\ufff9a\ufffab\ufffbc\ufffc \ufffd", "\ufdd0 \uffff \U0001fffe nonchar",
    "😀😃😄 👍🏽 👩‍🚀 👨‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 1️⃣ ❤️ ☺️ 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "🐱 cat 🌕 moon!", "\U0001f9d1\u200d\U0001f4bb\ufe0f",
    "一只猫在草地上行走，写实风格。", "電影感，柔和的光線，４Ｋ高清", "吾輩は猫である。名前はまだ無い。", "カタカナ ひらがな 漢字 ヴ が か\u3099 は\u309a", "고양이가 풀밭을 걷는다", "\u1112\u1161\u11ab\u1100\u1173\u11af jamo \u3131\u314f ﾡￂ",
    "кошка идёт по траве Ёё Йй", "γάτα στο γρασίδι ΑΒΓ ς σ", "קָטוּ בַּדֶּשֶׁא שלום", "قطة تمشي على العشب ١٢٣ ﻻ ﷲ لا", "फूलों में बिल्ली क्षत्रिय ज्ञ श्री", "পূর্ণিমা ক্ষ ত্র", "பூனை கொ ொ", "ಬೆಕ್ಕು కిట్టి പൂച്ച",
    "แมวเดินบนหญ้า น้ำ กำ ก็", "ແມວ ຍ່າງ", "កុក្កុរ ខ្មែរ", "ကြောင်", "བོད་ཡིག་", "ქართული კატა", "Հայերեն կատու և", "ድመት", "ᠮᠣᠩᠭᠣᠯ", "ᏣᎳᎩ", "𝒥ohn 𝔘nicode 𝟘𝟙𝟚 𐍈 𝄞 𠜎 𪚥",
    "Tiếng Việt: một con mèo đi dạo trên cỏ Ấ ậ ữ", "Türkçe ğüşıöç ĞÜŞİÖÇ", "Zażółć gęślą jaźń", "Příliš žluťoučký kůň", "Straßenbahn äöüß ẞ",
    "special <pad> </s> <unk> <extra_id_0> <extra_id_9><extra_id_99> tokens", "</s>", "<pad><pad>", "a</s>b", " </s> ", "x <extra_id_0>  y", "<0x41> <0x0A> <s> </ s> <EXTRA_ID_0>", "▁ ▁▁ a▁b ▁", "a  ▁  b",
    "&amp; &lt;b&gt; &quot;x&quot; &apos;y&apos; &nbsp;z &copy;2024 &hellip;", "&amp;lt;b&amp;gt; &amp;amp;amp;amp; deep", "<b>&amp; &lt; kept?</b> &eacute;", "first &amp; line\n<second> &amp; line\nthird &amp;amp; line",
    "&eacute; &EACUTE; &Eacute; &NTILDE; &nTILDE; &SZLIG; &ALPHA; &OMEGA;", "&notit; &not it &notin; &notinva &amp &ampx &ltx; &copy &copyright", "&#65; &#x41; &#X41 &#65x &#x41g; &# &#; &#x; &#xg;", "&#0; &#128; &#x80; &#129; &#150; &#159; &#xD800; &#xDFFF; &#x110000; &#99999999999999; &#xFFFF; &#x1FFFE; &#xFDD0;",
    "&#1; &#8; &#9; &#10; &#11; &#12; &#13; &#31; &#127; &#133; &#160; &#59; &#38;lt;", "&CounterClockwiseContourIntegral; &NotEqualTilde; &fjlig; &ThickSpace; &bne; &acE;", "&; && &a; &unknown; &aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; &ampé &lté",
    "AT&T R&D rock&roll a&b=c&d", "&Jscr;ohn &HilbertSpace;", "&amp;#65; &amp;#38;#65;", "&\u00e9t\u00e9; &gt\u4e00", "&nbsp;&nbsp;x&ensp;&emsp;y&zwj;&zwnj;&shy;&lrm;",
    "I'm can't we'll they've you'd isn't", "3.14159 1,234,567.89 -5 +7 1e10 0xFF 50% $100 €20 £5 ¥1", "e-mail@example.com https://example.com/a?b=c&d=e#f", "C:\\path\\file.txt /usr/bin ~/.config *.md", "a_b-c.d,e;f:g!h?i(j)k[l]m{n}o|p\\q/r~s`t^u", "((masterpiece)), best quality, (detailed:1.2), [blurry], {bokeh}", "<lora:name:0.8> a photo",
    "x" * 300, "ab " * 120, "supercalifragilisticexpialidocious antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis", "日" * 80, "👍" * 40, "a\u0301" * 50, "\u0301" * 20, " " * 50, "a" + " " * 30 + "b",
    "the cat the cat the cat over the sea in the night sky", "a red star on a blue background", "a yellow circle moving left over the sea", "a pink heart spinning in the night sky", "green square, two white triangles rotate slowly",
]
MOJIBAKE = [
    "â€œmojibakeâ€\u009d and text", "CafÃ© naÃ¯ve", "sÃ³ uma tradiÃ§Ã£o", "âœ” No problems", "donâ€™t itâ€™s", "ÐšÐ¾ÑˆÐºÐ°", "Ã©", "ã\x83\x84", "voilÃ le travail", "Ã la mode", "â€œ like this â€�", "l’humanitÃ©", "ÃƒÂ©", "rÃ©sumÃ© — fine", "\x91quoted\x92 \x85", "Â£5 Â©2020", "It was namedÂ â€žscarsÂ´ stonesâ€œ", "Ã¼ber straÃŸe",
    "Γ€ß ok", "São Paulo © ® é à", "É»", "Ä±", "à la carte ÂÃ", "Øresund Ø½", "× ² ³", "“Œuvre”", "Å²", "Â°", "cafÃ\u00a9 â\u0084¢",
]
BLOCKS = [
    (0x20, 0x7E), (0xA0, 0xFF), (0x100, 0x24F), (0x250, 0x2FF), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x4FF), (0x530, 0x58F),
    (0x590, 0x5F4), (0x600, 0x6FF), (0x900, 0x97F), (0x980, 0x9FE), (0xB82, 0xBCD), (0xE01, 0xE5B), (0xF00, 0xF40), (0x1000, 0x109F),
    (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1E00, 0x1EFF), (0x1F00, 0x1FFE), (0x2000, 0x206F), (0x2070, 0x209C), (0x20A0, 0x20BF),
    (0x20D0, 0x20F0), (0x2100, 0x218B), (0x2190, 0x21FF), (0x2200, 0x22FF), (0x2300, 0x23FF), (0x2460, 0x24FF), (0x2500, 0x259F), (0x25A0, 0x27BF),
    (0x2E80, 0x2FD5), (0x3000, 0x303F), (0x3041, 0x30FF), (0x3131, 0x318E), (0x3200, 0x33FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3),
    (0xF900, 0xFAD9), (0xFB00, 0xFB4F), (0xFB50, 0xFDFF), (0xFE20, 0xFE6B), (0xFF00, 0xFFEF), (0x1D400, 0x1D7FF), (0x1F000, 0x1F0FF),
    (0x1F100, 0x1F1FF), (0x1F300, 0x1FAF8), (0x20000, 0x2A6DF), (0x2F800, 0x2FA1D), (0x1, 0x1F), (0x80, 0x9F),
]


def drawn():
    rng = random.Random(20240607)
    alphabet = ["cat", "the", "star", " ", "  ", "▁", "</s>", "<extra_id_3>", "é", "e\u0301", "\u200d", "\ufe0f", "猫", "한", "🐱", "ﬁ", "Ａ", "&amp;", "\n", "\t", "a", "red", ".", ",", "-", "\u0301", "ก็", "क्ष"]
    for low, high in BLOCKS:
        for _ in range(5):
            yield "".join(chr(rng.randint(low, high)) + (" " if rng.random() < 0.15 else "") for _ in range(rng.randint(1, 16)))
    for _ in range(90):
        yield "".join(rng.choice(alphabet) for _ in range(rng.randint(2, 24)))
    for _ in range(60):
        yield "".join(chr(rng.randint(*rng.choice(BLOCKS[:-2]))) for _ in range(rng.randint(3, 30)))


def main():
    json_models = {f: tokenizers.Tokenizer.from_file(f"{HERE}/{f}/tokenizer.json") for f in ("wan2.1-t2v", "wan2.2-a14b", "tiny-wan")}
    spm_models = {f: sentencepiece.SentencePieceProcessor(model_file=f"{HERE}/{f}/spiece.model") for f in ("wan2.1-t2v", "wan2.1-i2v", "tiny-wan")}
    with open(f"{HERE}/wan2.1-i2v/tokenizer_config.json", encoding="utf-8") as f:
        decoder = json.load(f)["added_tokens_decoder"]
    specials = {f: dict(SPECIAL) for f in spm_models}
    specials["wan2.1-i2v"].update({token["content"]: int(i) for i, token in decoder.items()})
    entries = []
    for text in dict.fromkeys(WRITTEN + MOJIBAKE + list(drawn())):
        entry = {"text": text, "clean": prompt_clean(text)}
        if is_mojibake(text):
            entry["mojibake"] = True
        entry["json"] = {f: t.encode(text).ids for f, t in json_models.items()}
        entry["spm"] = {f: spm_ids(m, specials[f], text) for f, m in spm_models.items()}
        entries.append(entry)
    with open(f"{HERE}/strings.json", "w", encoding="ascii") as f:
        f.write("[\n" + ",\n".join(json.dumps(e, separators=(",", ":")) for e in entries) + "\n]\n")
    print(len(entries), "strings,", sum("mojibake" in e for e in entries), "with mojibake")


main()
