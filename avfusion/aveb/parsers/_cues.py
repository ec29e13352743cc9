"""The words around a mention that declare it, reject it or take it back, in English and other languages."""

import re

_FLAGS = re.IGNORECASE | re.VERBOSE

# Between a negation and what it negates, or between a cue and what it declares.
_FILLING = r"""(?:[\s,:'"(\[{<>=*-]|\b(?:be|been|necessarily|the|an?|options?|choices?|answers?|letters?|numbers?|
    labels?|either|both|any|
    all|of|is|it|it's|its|that|this|just|exactly|really|actually|clearly|definitely|probably|likely|most|certainly|
    surely|
    indeed|simply|think|thought|believe|say|said|choose|pick|go|going|with|to|as|was|were|for|by|from|in|about|on|contain|include|have|feature|
    match|fit|support|mention|
    show|suggest|indicate|correspond|sound|sounds|look|looks|like|seems?|appears?|hear|see|la|el|le|l'|die|der|das|des|
    opción|option|réponse|lettre)\b|是|为|選項|选项|の)*"""

REJECTED_BEFORE = re.compile(
    rf"""(?:\b(?:not(?!\ (?:only|just|sure|certain|merely))|cannot|never|neither|nor|unlike|than|instead\ of|
    rather\ than|except(?:\ for)?|excluding|(?<!none\ )other\ than|besides|as\ opposed\ to|versus|vs\.?|
    compared\ (?:to|with)|different\ (?:from|to)|in\ contrast\ to|contrary\ to|
    (?:rul|eliminat|exclud|reject|dismiss|discard|discount|cross)(?:e|es|ed|ing)?(?:\ out)?|
    (?:incorrect|wrong|false|unlikely|discarded|rejected|eliminated)(?:\ (?:answer|option|choice)s?)?(?:\ (?:is|are|
    was))?|
    initially(?:\ \w+)?|at\ first(?:,?\ (?!but)\w+)?|first\ (?:thought|guess|instinct|impression)|used\ to|tempted|
    no\ es|non\ è|não\ é|nicht|kein\w*|pas|ni|не|weder|noch)
    |\bno(?=\s$)|n't|❌|不是|不选|不選|并非|並非|而不是|而非|排除|除了){_FILLING}$""",
    _FLAGS,
)

_IS = r"""(?:(?:is|are|was|were|would|will|be|seems?|looks?|sounds?|appears?|to|can|could|may|might|must|should|has|
    have|
    been|gets?|both|all|also|just|simply|clearly|obviously|definitely|probably|likely|therefore|thus|completely|totally|
    too|so|very|quite|rather|far|the|an?|one|being|is's|as|est|es|ist|sind|son|sont|é|è)\s+|'s\s+|'re\s+|,\s+|are\s+)"""

REJECTED_AFTER = re.compile(
    rf"""^[\s,:;)\]}}'".=>-]*{_IS}*(?:
    at\ first\b|initially\b|wrong|incorrect\w*|false\w*|invalid|inaccurate|untrue|unlikely|impossible|implausible|
    irrelevant|unrelated|unsupported|
    out\b(?!\ of\ (?:the|these|all)\ )|eliminat\w+|ruled|excluded|rejected|dismissed|discarded|discounted|crossed|
    distractors?|tempting|plausible\ but|less\ (?:likely|plausible|probable|fitting|suitable)|off\ topic|mistaken|
    a\ trap|
    inconsistent|contradict\w*|never\b|lacks?\b|fails?\b|(?:also\ )?possible|no\s+match|different\ from\ what|
    falsch|falsa|faux|incorrecta|incorrecto|неверно|неправильно|可以排除|
    (?:は|이|가|은|는)?\s?(?:間違|違い|틀|아니))
    |^\s*\?\s*(?:no|nope|not|(?:I\ )?(?:don't|do\ not)\ think)\b
    |^\s*(?:选项|項)?(?:不对|不對|不正确|不正確|错|錯|不符|不是|被排除|可排除)
    |^[^\S\n]*[:=).>\]-]*[^\S\n]*(?:❌|✗|✘|✖|☒|(?:[:-]\s*)(?:no|nope|not\b(?!\ (?:wrong|incorrect))\w*)\b)""",
    _FLAGS,
)

# What a mention that stands right before does not do or is not.
DENIED_AFTER = re.compile(
    r"""^[\s)\]'"]*(?:(?:also|both|clearly|definitely|obviously|simply)\s+)?(?:
    (?:is|are|was|were|does|do|did|can|could|would|will|should|has|have)\s+(?:(?:also|both|clearly|definitely)\s+)?not
    |(?:is|are|was|were|does|do|did|ca|could|would|wo|should|has|have)n't|can't|cannot|never|fails\ to|lacks|
    ignores|contradicts)\b
    (?!\s+(?:wrong|incorrect|only|just|bad|impossible|unlikely|merely))""",
    _FLAGS,
)

_LEVEL = (
    r"(?:(?:most|more|best|better|very|quite|also|clearly|definitely|really|indeed|probably|likely|only|one|that)\s+)*"
)
DECLARED_AFTER = re.compile(
    rf"""^[\s,:)\]}}'"-]*{_IS}*(?:my|our|only|final)?\s*{_LEVEL}(?:
    correct(?!\ that)|right\b(?!\s+(?:hand|side|after|before|now|away))|(?:the\ )?answer|best|better|true\b|accurate|
    (?:most|more)\ (?:likely|plausible|probable|appropriate|suitable|accurate|reasonable)|winner|
    (?:match(?:es)?|fits?|suits)\ (?:best|better|the|what|both|it|everything|all)|it\ is\b(?=\W*$)|remains\b|
    wins\b|has\ the\ edge|
    stands\b|makes\ (?:the\ )?(?:most\ )?sense|
    (?:my|final)\ (?:choice|pick|answer|guess)|(?:good|strong|clear)\ match|(?:\w+\s+){{0,2}}in\ (?:total|all)\b|
    (?:\w+\s+){{0,2}}(?:altogether|all\ told|overall\b(?=\W*$)|combined)|
    correcta|correcto|richtig|bonne|exacte|corretta|correta|верн|правильн|
    (?:是|为)?(?:正确|正確|对的|對的)|(?:が|이|가)?\s?(?:正解|正しい|정답|맞))
    |^\s*[:?]\s*yes\b|^[^\S\n]*[:=).>\]-]*[^\S\n]*[✅✓✔☑]""",
    _FLAGS,
)

# A cue declares what stands right behind it, or else the one value that its sentence names.
DECLARING = re.compile(
    r"""(?:
    \b(?:answer|choice|selection|pick|solution|verdict|conclusion|decision|response|prediction|label|guess|vote|ans)s?\b
      (?<!choices)(?<!selections)
      (?!\s+(?:choices|options|candidates|is\s+(?:unclear|unknown)))
      (?:\s+(?:here|then|to\ (?:the|this)\ question|for\ (?:the|this)\ question|from\ the\ options|must\ therefore))?
      \s*(?:\((?:final|s)\)\s*)?
      (?:(?:is|are|was|would|will|must|should|has\ to|have\ to|therefore|thus|clearly|likely|probably|can\ only|
    most)\s*(?:be\b|be:|:)?|be\b|[:=]|->|=>|-|→)+
    |\b(?:answer|choice|option|select|choose)(?=\s*["'(\[]?\s*[A-Z]\b)
    |(?:^|\n)[\s\d.):#-]{0,8}(?:(?:final|my|the|overall)\s+)?(?:answer|conclusion|verdict|decision|summary|result|choice)
      [^\S\n]*:?[^\S\n]*\n
    |\b(?:summary|bottom\ line|tl;?dr|result|judge?ment|determination|takeaway)\s*:
    |\b(?:correct|right|best|proper|likeliest|accurate|(?:most|more)\ (?:likely|plausible|probable|appropriate|
    suitable|accurate))\s+
      (?:answer|option|choice|one|label|match|candidate|description|statement|letter|count|number)\s*(?:(?:is|
    would\ be|must\ be|seems\ to\ be|was|:|=|,)\s*)+
    |\b(?:I|we)\s*(?:'d|would|will|'ll|'m|am|have|must|can)?\s*(?:still|therefore|thus|finally|rather|definitely|
    probably)?\s*
      (?:choose|chose|pick(?:ed)?|select(?:ed)?|(?:go(?:ing)?|went)\ (?:with|for)|vote\ for|opt\ for|
    settled?\ (?:on|for)|say|answer|guess|
      lean(?:ing)?\ (?:towards?|to)|count(?:ed)?|conclude(?:\ that)?|choosing|picking|selecting)\b(?!\s+between)
    |\b(?:leaves?|leaving)(?:\ us|\ me)?(?:\ only|\ with)?\b(?=\s+(?:only\s+|just\s+)?(?:option\s+|
    answer\s+)?["'(]?[A-Z0-9]\b)
    |\b(?:left\ with|point(?:s|ing)?\ to|settles\ it|go\ with|my\ final\ answer|lock\ in|choosing|picking|selecting)\b:?
    |✅|✔|☑|\#{4}|=>|⇒|\bin\ total,?|\btotal(?:\s+(?:of|is|number|count|people|persons|items))*\s*(?::|is|of|=)|
    \baltogether,?|=
    |答案(?:应该|應該|应|就)?(?:是|为|為|选|選|:|\s)|正确(?:答案|选项)(?:是|为|:)|[应應]?(?:该|該)?[选選](?:择|擇)?(?![项項])|故选
    |答え(?:は|:)|正解(?:は|:)|解答(?:は|:)|정답(?:은|:)|답(?:은|:)
    |\b(?:respuesta|opción|opcion)(?:\s+(?:correcta|final))?\s*(?:es|sería|:)
    |\br[ée]ponse(?:\s+(?:correcte|finale|exacte))?\s*(?:est|:)|\bantwort(?:\s*(?:ist|wäre|lautet|:))+
    |\bresposta(?:\s+(?:correta|certa|final))?\s*(?:é|:)|\brisposta(?:\s+(?:corretta|finale|esatta))?\s*(?:è|:)
    |\bответ\s*(?:[:—-]|это)?|\bodpowiedź\s*(?:to|:)|\bantwoord\s*(?:is|:)|\bcevap\s*:?|\bsvar\s*:|
    \bjawaban(?:nya)?\s*(?:adalah|:)|\bđáp\ án\s*(?:là|:)?|الإجابة\s*(?:هي|:)?|उत्तर\s*(?:है|:)?
    )""",
    _FLAGS,
)
CONCLUDING = re.compile(
    r"""(?:(?:^|(?<=[.,;:!?\n-])\s*|\band\s+)(?:so(?!\s+(?:far|much|many|that|loud))|therefore|thus|hence|
    consequently|ergo|
    in\ (?:conclusion|summary|short|sum|brief)|all\ in\ all|to\ sum(?:\ (?:it\ )?(?:all\ )?up)?|
    all\ things\ considered|to\ (?:conclude|summari[sz]e)|overall|ultimately|finally|in\ the\ end|
    por\ (?:lo\ )?tanto|donc|
    folglich|daher)\b|\btherefore\b|所以|因此|综上|故(?=[A-Z])|따라서|したがって|よって)""",
    _FLAGS,
)
# Announces that all options are looked at, one after the other.
WALKING = re.compile(
    r"""\b(?:go(?:ing)?\ (?:through|over)|evaluat\w+|consider\w*|examin\w+|analy[sz]\w+|check\w*|look(?:ing)?\ at|
    assess\w*|compar\w+|review\w*|weigh\w*|break\ down|take|discuss)\s+(?:\w+\s+){0,2}(?:options?|choices?|candidates?|
    answers?|each|one\ by\ one)\b""",
    _FLAGS,
)
# The value right behind is what parts come to.
TOTALLING = re.compile(
    r"""\b(?:mak(?:ing|es?)|giv(?:ing|es)|add(?:s|ing)?\ up\ to|add(?:s|ing)?\ to|sum(?:s|ming)?(?:\ up)?\ to|
    total(?:s|l?ing)|com(?:es|ing)\ to|amount(?:s|ing)?\ to|bring(?:s|ing)?\ (?:it|the\ \w+)\ to|equals|
    (?:grand\ |a\ )?total\ of|(?:I|we)\ prefer(?:red)?|prefer)\b:?""",
    _FLAGS,
)
_EXCEPT = r"(?:but|except(?:\ for)?|excluding|other\ than|besides|apart\ from|aside\ from|save(?:\ for)?|bar)"
_OPTIONS = (
    r"(?:\s+(?:of\s+)?(?:the|these|those|given|other|listed|possible|options?|choices?|answers?|candidates?|ones?))*"
)
_NAMED = r"\s+(?:option|choice|answer|candidate|letter|the|an?|\W)*[\s\"'(\[]*$"
# "all but B are wrong" and "none but B fits" declare B.
ALL_BUT = re.compile(rf"\b(?:all|everything|every|each|any(?:thing)?|the\ rest){_OPTIONS}\s+{_EXCEPT}{_NAMED}", _FLAGS)
NONE_BUT = re.compile(
    rf"\b(?:none|nothing|no(?=\s+(?:option|choice|answer|candidate|other|one))|no\ one){_OPTIONS}\s+{_EXCEPT}{_NAMED}",
    _FLAGS,
)
# "B over C", "I prefer B to C": what stands second is liked less.
_SECOND = r"\s+(?:(?:option|the|an?)\s+)*\W*"
LESS = re.compile(rf"[\s,)\]\"']*(?:(?:is|seems)\s+(?:\w+ly\s+)?preferable\ to|beats|over|outweighs){_SECOND}", _FLAGS)
LESS_LIKED = re.compile(rf"[\s,)\]\"']*(?:to|over){_SECOND}", _FLAGS)
# "and so is D": rejected as the one before it is.
ALIKE = re.compile(
    r"\b(?:so|neither|nor)\ (?:is|are|does|do|can|was|were|did)\s+(?:(?:option|the|an?)\s+)*\W*$", _FLAGS
)
PREFERRING = re.compile(r"\bprefer(?:red|s|ring)?\b[^.]*$", _FLAGS)
SUGGESTING = re.compile(
    r"""(?:\b(?:it\s+(?:is|was|has\ to\ be|must\ be|could\ be|might\ be|would\ be|may\ be|can\ only\ be|
    should\ be)|it's|that\s+is|this\s+is|that's|must\s+be|has\ to\ be|(?:looks|sounds|seems)\s+(?:to\ be|like)?|
    probably|likely|perhaps|maybe|possibly|definitely|clearly|obviously|certainly|surely|(?:I|we)\s+(?:think|
    believe|guess|suppose|hear|see|can\ hear)(?:\ that)?|
    I'm\s+(?:sure|confident|certain|guessing)|my\s+(?:bet|money)\ is\ on|c'est|es\ ist|è|es\ la|é)\b)""",
    _FLAGS,
)
FILLED = re.compile(_FILLING, _FLAGS)

# Clauses that say why: what they name is not the answer where another part names one.
ASIDE = re.compile(
    r"\b(?:choosing|torn|deciding|choose|decide|hesitat\w+|toss-?up|split)\s+between\b[^,.;\n]*?(?=\bbut\b|[,.;\n]|$)|"
    r"\b(?:because|since|given that|due to|weil|parce que|porque)\b[^,.;\n]*|因为[^,.;。\n]*",
    re.IGNORECASE,
)
# Clauses that set one option against another; of texts they may tell a part, as "while" does of what happens at once.
CONTRAST = re.compile(
    r"""\b(?:whereas|while|although|though|even\ though|despite|in\ spite\ of|as\ (?=(?:the|it|he|she|they|there|
    we|I|option|choice|
    [A-Z])\b))\b[^,.;\n]*""",
    _FLAGS,
)
CONDITIONAL = re.compile(
    r"""\bif\b(?!\s+(?:I|we|you)\s+(?:had|have|must|were\ forced|am\ forced)|\s+(?:forced|pressed|anything|so)\b)
      (?:[^.;\n]*\bwould\b[^.;\n]*|[^,.;\n]*)
    |\b(?:not\ (?:sure|certain|clear)|unsure|unclear|can(?:'t|not)\ (?:tell|say|determine|decide))\s+(?:if|whether|
    between)\b[^,.;\n]*
    |\bwhether\b[^,.;\n]*|[^.;\n!?]{0,80}\bwould\ (?:be|have\ been)\b[^.;,\n]*\bif\b[^.;\n]*""",
    _FLAGS,
)
CORRECTED = re.compile(
    r"""(?:\b(?:wait|hold\ on|correction|on\ second\ thoughts?|scratch\ that|strike\ that|I\ mean|my\ mistake|
    my\ bad|oops|or\ rather|
    let\ me\ (?:re\w+|correct|think\ again|look\ again)|I\ (?:misspoke|take\ that\ back|stand\ corrected)|
    more\ precisely|to\ correct\ myself|changed\ my\ mind|
    (?:up)?on\ (?:an?\ |my\ )?(?:second|closer|further|careful|another)\ (?:look|listen(?:ing)?|inspection|
    examination|count|    viewing|hearing|reflection|analysis)|(?:looking|listening|counting)\ (?:again|closer|
    more\ (?:closely|carefully))|
    re-?count(?:ed|ing)?|after\ (?:checking|watching|listening|looking|counting)\ again|
    but(?:\s+\w+){0,8}\s+actually|(?:there\ (?:are|is|were|was)|(?:it|that)(?:\ is|'s)|they\ are)\ actually|edit:|
    mejor\ dicho|
    besser\ gesagt|vielmehr)\b
    |(?:(?<=[.,;:!?-])\s*|^\s*|\b(?:wait|but|no|or|oh|and|hmm)\b[\s,]*)\bactually\b
    |[.,;!?-]\s*sorry\b(?=,)|不对,|等等,|等一下|不,)""",
    _FLAGS,
)
RETRACTED = re.compile(r"(?:(?<=[.,;?!…-])\s*|\n\s*)\bno\b\s*[,.!:-]+", re.IGNORECASE)  # "A. No, B": not for yes and no

JOINING = re.compile(
    r"""(?:[\s,/&()\[\]"':+]|\.(?=\s*(?:or|and)\b)|
    \b(?:and|or|nor|und|oder|et|ou|y|o|e|i|или|и|options?|choices?|answers?|letters?|the|an?|both|either|also|maybe|
    perhaps|possibly|even)\b|[和或与與及とや]|或者|または|또는|또|및)*""",
    _FLAGS,
)
ENUMERATING = re.compile(r"""["'\s)\]}.:,-]*[([{"']*\s*(?:(?:the|an?)\s+)?""", re.IGNORECASE)
ADDED = re.compile(r"^[\s,)]*(?:is|are|as well|too|also)?\s*\b(?:also|too|as well|equally)\b", re.IGNORECASE)
