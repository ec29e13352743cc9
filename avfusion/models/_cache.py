"""The name of the language model's cache: ``cache`` from transformers 5.24 on, ``past_key_values`` before."""

from dataclasses import fields

from transformers.modeling_outputs import CausalLMOutputWithPast

CACHE = "cache" if any(field.name == "cache" for field in fields(CausalLMOutputWithPast)) else "past_key_values"
