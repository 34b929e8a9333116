"""A hypothesis is flagged as collapsed by its text: loops of any kind are, correct sentences in any script are not."""

import pytest

from emtta_core.adaptation.flags import EXCESS, collapsed, flags_of

CORRECT = {
    "English": "All human beings are born free and equal in dignity and rights. They are endowed with reason and "
    "conscience and should act towards one another in a spirit of brotherhood.",
    "German": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen "
    "begabt und sollen einander im Geist der Brüderlichkeit begegnen.",
    "Bengali": "সমস্ত মানুষ স্বাধীনভাবে সমান মর্যাদা এবং অধিকার নিয়ে জন্মগ্রহণ করে। তাঁদের বিবেক এবং বুদ্ধি আছে; সুতরাং "
    "সকলেরই একে অপরের প্রতি ভ্রাতৃত্বসুলভ মনোভাব নিয়ে আচরণ করা উচিত।",
    "Hindi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है। उन्हें बुद्धि और "
    "अन्तरात्मा की देन प्राप्त है और परस्पर उन्हें भाईचारे के भाव से बर्ताव करना चाहिए।",
    "Thai": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ ต่างมีเหตุผลและมโนธรรม และควรปฏิบัติต่อกันด้วยเจตนารมณ์แห่งภราดรภาพ",
    "Burmese": "လူတိုင်းသည် တူညီလွတ်လပ်သော ဂုဏ်သိက္ခာဖြင့်လည်းကောင်း၊ တူညီလွတ်လပ်သော အခွင့်အရေးများဖြင့်လည်းကောင်း၊ မွေးဖွားလာသူများ ဖြစ်သည်။",
    "Georgian": "ყველა ადამიანი იბადება თავისუფალი და თანასწორი თავისი ღირსებითა და უფლებებით. მათ მინიჭებული აქვთ "
    "გონება და სინდისი და ერთმანეთის მიმართ უნდა იქცეოდნენ ძმობის სულისკვეთებით.",
    "Chinese": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",  # noqa: RUF001
    "Japanese": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "Korean": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    "Arabic": "يولد جميع الناس أحراراً متساوين في الكرامة والحقوق، وقد وهبوا عقلاً وضميراً.",
    "Amharic": "የሰው ልጅ ሁሉ ሲወለድ ነጻና በክብርና በመብትም እኩልነት ያለው ነው።",
}
WORDS = {
    **{"English": "again", "German": "wieder", "Bengali": "আবার", "Hindi": "फिर", "Thai": "อีก", "Burmese": "ထပ်မံ"},
    **{
        "Georgian": "ისევ",
        "Chinese": "谢谢",
        "Japanese": "はい",
        "Korean": "다시",
        "Arabic": "مرة",
        "Amharic": "እንደገና",
    },
}
UNSPACED = ("Thai", "Burmese", "Chinese", "Japanese")


@pytest.mark.parametrize("script", CORRECT)
def test_correct_sentence_is_no_loop(script: str) -> None:
    assert not collapsed(CORRECT[script])
    assert not collapsed(f"{CORRECT[script]} " * 3)  # as a refrain
    assert not collapsed(CORRECT[script][:12])


@pytest.mark.parametrize("script", CORRECT)
def test_loops_of_any_script_are_found(script: str) -> None:
    space = "" if script in UNSPACED else " "
    word, phrase = WORDS[script], CORRECT[script][:20].strip()
    assert not collapsed(space.join([word] * 3))
    for loop in (space.join([word] * 20), space.join([phrase] * 6), word[0] * 60):
        assert collapsed(loop)
        assert collapsed(CORRECT[script][:30] + space + loop * 2)  # a sentence that ends in a loop
        assert collapsed(loop[: -len(word) // 2])  # cut in the middle of a repeated unit, as by a token limit


@pytest.mark.parametrize(
    "text",
    [
        "no no no",
        "No, no, no, no, no!",
        "ha ha ha ha ha ha",
        "it was very very very very good",
        "hmmmmmmm",
        "zero seven zero zero zero one two two",
        "1 000 000 000",
        "let it be, let it be, let it be, let it be",
        "はいはいはい",
        "555555",
        "...",
        "They said again and again that they would come again.",
    ],
)
def test_plausible_repetition_is_no_loop(text: str) -> None:
    assert not collapsed(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  \n",
        "!!!!!!!!!!!!!!!!!!!!!!!!",
        "\ufffd" * 30,
        "No, no! " * 4 + "no, no! " * 6,
        "thank you for watching. " * 5,
        "we went on the left on the right " + "on the left on the right " * 9,
        "the  the\tthe the the the the the the the the",
        "one two one two " * 4 + "three four three four " * 4,
    ],
)
def test_empty_and_looping_are_found(text: str) -> None:
    assert collapsed(text)


def test_excess_bound_is_exact() -> None:
    for piece in ("a", "no,", "five-words-of-one-phrase,"):
        just = piece * (3 + EXCESS)
        assert collapsed(just[: 3 * len(piece) + EXCESS])
        assert not collapsed(just[: 3 * len(piece) + EXCESS - 1])


def test_loop_within_speech_is_no_loop() -> None:
    loop = "and then " * 8
    assert collapsed(loop + CORRECT["English"][3 : len(loop)])
    assert not collapsed(loop + CORRECT["English"][3 : len(loop) + 6])


def test_flags_are_in_order() -> None:
    assert flags_of("sound", ended=True) == ()
    assert flags_of("sound", ended=False) == ("truncated",)
    assert flags_of("", ended=False, gated=True, reverted=True) == ("truncated", "collapsed", "gated", "reverted")
