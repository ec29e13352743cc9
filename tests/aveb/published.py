"""The first records of every published manifest, and the task of each."""

from pathlib import Path

FOLDER = Path(__file__).parent / "manifests"
MANIFESTS = {
    "ocr": "textvqa.json",
    "vqa": "testdev_balanced_questions_with_images.json",
    "ic": "flickr30k_captions.json",
    "video_qa": "nextqa_test.json",
    "ego4d_qa": "ego4d_qa.json",
    "presentation_qa": "presentation_qa.json",
    "avsr": "how2_test.json",
    "avssd": "testdata_formatted.json",
    "avm": "audiovisualmatching_combined.json",
    "avsd": "avsd_textformat_subset.json",
}
