"""Whisper × InstructBLIP × GPT-2: FAVOR's own encoders, its two widths, and a language model that learns positions."""

import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    BlipImageProcessor,
    GPT2Config,
    GPT2LMHeadModel,
    InstructBlipConfig,
    InstructBlipModel,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperFeatureExtractor,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from avfusion import AudioVisualConnector
from avfusion.encoders import InstructBlipVisualEncoder, WhisperAudioEncoder
from avfusion.models import AudioVisualLanguageModel
from examples.gallery.common import SMALL, Result, assemble, run

TOWER = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def build(tokenizer: PreTrainedTokenizerFast) -> AudioVisualLanguageModel:
    # WhisperAudioEncoder.from_pretrained("openai/whisper-large-v2")
    whisper = WhisperConfig(
        d_model=32, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=64, max_source_positions=100
    )
    audio = WhisperAudioEncoder(model=WhisperEncoder(whisper), feature_extractor=WhisperFeatureExtractor())

    # InstructBlipVisualEncoder.from_pretrained("Salesforce/instructblip-vicuna-7b", dtype=torch.float16): 32 tokens a
    # frame, for which its Q-Former can be asked: vision(video, qformer_input_ids=…)
    blip = InstructBlipConfig(
        vision_config={**TOWER, "image_size": 28},
        qformer_config={**TOWER, "vocab_size": 10, "encoder_hidden_size": 24},
        text_config={"model_type": "opt", **TOWER, "vocab_size": 10, "ffn_dim": 24, "word_embed_proj_dim": 24},
        num_query_tokens=8,
    )
    processor = BlipImageProcessor(size={"height": 28, "width": 28})
    vision = InstructBlipVisualEncoder(model=InstructBlipModel(blip), image_processor=processor)
    torch.nn.init.normal_(vision.query_tokens)  # a checkpoint brings its own

    # AutoModelForCausalLM.from_pretrained("openai-community/gpt2")
    sizes = {"n_embd": 48, "n_layer": 2, "n_head": 2, "n_positions": 128}
    gpt2 = GPT2Config(vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=1, **sizes)
    lora = LoraConfig(r=4, target_modules=["c_attn"], fan_in_fan_out=True)

    # A trained map of the audio to the width of the visual tokens; the paper's is 768.
    connector = AudioVisualConnector.from_encoders(visual=vision, audio=audio, llm=gpt2.n_embd, **SMALL, stream_dim=24)
    llm = get_peft_model(GPT2LMHeadModel(gpt2), lora)
    return assemble(tokenizer, language_model=llm, connector=connector, visual=vision, audio=audio)


def main() -> Result:
    return run(build)


if __name__ == "__main__":
    main()
