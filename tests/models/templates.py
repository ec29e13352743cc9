"""Chat templates after the published form of well-known language models, and a tokenizer that has them."""

from typing import NamedTuple

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast


class Style(NamedTuple):
    """A template, the tokens that it needs, and what ends an answer."""

    template: str
    special: tuple[str, ...]
    bos: str | None
    eos: str
    end: str
    system: bool = True


_CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
STYLES = {
    "smollm2": Style(
        "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}" + _CHATML,
        ("<|im_start|>",),
        "<|im_start|>",
        "<|im_end|>",
        "<|im_end|>",
    ),
    "qwen3": Style(_CHATML, ("<|im_start|>", "<|im_end|>"), None, "<|endoftext|>", "<|im_end|>"),
    "llama3": Style(
        "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + "
        "m['content'] | trim + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|eot_id|>",
    ),
    "gemma": Style(
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m['role'] == 'assistant' else m['role']) "
        "+ '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
        ("<start_of_turn>", "<end_of_turn>"),
        "<bos>",
        "<eos>",
        "<end_of_turn>",
        system=False,
    ),
    "mistral": Style(
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
        "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}",
        ("[INST]", "[/INST]"),
        "<s>",
        "</s>",
        "</s>",
        system=False,
    ),
    "phi": Style(
        "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
        ("<|user|>", "<|assistant|>", "<|system|>", "<|end|>"),
        "<s>",
        "<|endoftext|>",
        "<|end|>",
    ),
}


def tokenizer_of(style: str | None) -> PreTrainedTokenizerFast:
    """Bytes, the tokens of a style and ``<av>``; begins with the begin token, as those of Llama do."""
    chosen = Style("", (), "<s>", "</s>", "</s>") if style is None else STYLES[style]
    names = [*chosen.special, chosen.bos, chosen.eos, "<av>"]
    tokens = [name for name in dict.fromkeys(names) if name is not None]
    rule = Tokenizer(models.BPE({byte: n for n, byte in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    rule.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rule.decoder = decoders.ByteLevel()
    rule.add_special_tokens([AddedToken(token, special=True) for token in tokens])
    if chosen.bos is not None:
        first = (chosen.bos, rule.token_to_id(chosen.bos))
        rule.post_processor = processors.TemplateProcessing(single=f"{chosen.bos} $A", special_tokens=[first])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=rule, bos_token=chosen.bos, eos_token=chosen.eos)
    tokenizer.chat_template = chosen.template or None
    return tokenizer
