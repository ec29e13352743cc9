"""AST × InstructBLIP × Gemma 3: the question guides the queries, so that they look for what is asked."""

import torch
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    BlipImageProcessor,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    InstructBlipConfig,
    InstructBlipModel,
    PreTrainedTokenizerFast,
)

from avfusion import AudioVisualConnector
from avfusion.encoders import HFAudioEncoder, InstructBlipVisualEncoder
from avfusion.models import AudioVisualLanguageModel, prepare_inputs
from examples.gallery.common import ANSWERS, QUESTIONS, SMALL, Result, assemble, noise_clips, word_tokenizer

TOWER = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def build(tokenizer: PreTrainedTokenizerFast) -> AudioVisualLanguageModel:
    # HFAudioEncoder.from_pretrained("MIT/ast-finetuned-audioset-10-10-0.4593", pool_frequency=True)
    ast = ASTModel(ASTConfig(**TOWER, max_length=128))
    audio = HFAudioEncoder(model=ast, feature_extractor=ASTFeatureExtractor(max_length=128), pool_frequency=True)

    # InstructBlipVisualEncoder.from_pretrained("Salesforce/instructblip-flan-t5-xl")
    blip = InstructBlipConfig(
        vision_config={**TOWER, "image_size": 28},
        qformer_config={**TOWER, "vocab_size": 10, "encoder_hidden_size": 24},
        text_config={"model_type": "opt", **TOWER, "vocab_size": 10, "ffn_dim": 24, "word_embed_proj_dim": 24},
        num_query_tokens=8,
    )
    processor = BlipImageProcessor(size={"height": 28, "width": 28})
    vision = InstructBlipVisualEncoder(model=InstructBlipModel(blip), image_processor=processor)
    torch.nn.init.normal_(vision.query_tokens)  # a checkpoint brings its own

    # Gemma3ForCausalLM.from_pretrained("google/gemma-3-1b-it")
    sizes = {**TOWER, "hidden_size": 48, "num_key_value_heads": 1, "head_dim": 16}
    gemma = Gemma3TextConfig(**sizes, vocab_size=len(tokenizer))

    # The question as the language model embeds it.
    connector = AudioVisualConnector.from_encoders(
        visual=vision, audio=audio, llm=gemma.hidden_size, **SMALL, instruction_dim=gemma.hidden_size
    )
    return assemble(tokenizer, language_model=Gemma3ForCausalLM(gemma), connector=connector, visual=vision, audio=audio)


def main() -> Result:
    tokenizer = word_tokenizer()
    model = build(tokenizer).train()
    video, waveform = noise_clips()
    counts = model.num_placeholders(video=video, waveform=waveform)

    words = tokenizer([text.removeprefix("<av> ") for text in QUESTIONS], padding=True, return_tensors="pt")
    question = {
        "instruction": model.language_model.get_input_embeddings()(words["input_ids"]).detach(),
        "instruction_mask": words["attention_mask"].bool(),
    }
    taught = prepare_inputs(tokenizer, QUESTIONS, counts, answers=ANSWERS)
    loss = model(**taught, video=video, waveform=waveform, **question).loss
    loss.backward()

    asked = prepare_inputs(tokenizer, QUESTIONS, counts)
    prompt, real = asked["input_ids"], asked["attention_mask"]
    ids = model.eval().generate(prompt, real, video=video, waveform=waveform, **question, max_new_tokens=5)
    print(counts.tolist(), loss.item(), tokenizer.batch_decode(ids))
    return model, loss, ids


if __name__ == "__main__":
    main()
