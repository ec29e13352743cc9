"""transformers' common tests on every kind of preset; ``run`` puts this file beside them."""

import unittest

import pytest

from examples.favor import FavorForConditionalGeneration

from .generation.test_utils import GenerationTesterMixin
from .model_tester import FavorModelTester
from .test_modeling_common import ModelTesterMixin


class TextTester(FavorModelTester):
    """For tests that give ids without media: no id is the media token's, those that they draw from 0 up included."""

    media_tokens = 0

    def get_config(self):
        config = super().get_config()
        config.media_token_id = self.vocab_size - 1
        return config


class _Common(ModelTesterMixin, GenerationTesterMixin):
    all_model_classes = (FavorForConditionalGeneration,)
    test_can_init_all_missing_weights_before_2023 = True
    _is_composite = True
    preset = ""

    def setUp(self):
        alone = "eager_matches_sdpa_inference" in self._testMethodName
        self.model_tester = (TextTester if alone else FavorModelTester)(self, self.preset)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels=return_labels)
        ids, media_token = inputs["input_ids"], self.model_tester.get_config().media_token_id
        return {**inputs, "labels": ids.masked_fill(ids == media_token, -100)} if return_labels else inputs

    @pytest.mark.skip("The language model keeps its head, whatever that is, so there is no base model without one.")
    def test_model_base_model_prefix(self):
        pass

    @pytest.mark.skip("It wants image_outputs, and here there are no images: only videos and sound.")
    def test_multimodal_outputs_are_returned(self):
        pass


class FavorTest(_Common, unittest.TestCase):
    """InstructBLIP's towers and a Llama."""

    preset = "favor-vicuna-7b"


class VideoSalmonnTest(_Common, unittest.TestCase):
    """Two resolutions and a second audio tower."""

    preset = "video-salmonn-13b"


class ModernTest(_Common, unittest.TestCase):
    """SigLIP and Qwen3."""

    preset = "modern"
