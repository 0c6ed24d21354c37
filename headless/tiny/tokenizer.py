"""The tiny model's tokenizer: one token for each word, in the files that transformers reads."""

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from .networks import TEXT_TOKENS
from .words import vocabulary

START, END, UNKNOWN = "<|startoftext|>", "<|endoftext|>", "<|unknown|>"


def build() -> PreTrainedTokenizerFast:
    """Lower-case words and punctuation; what it does not know becomes one token; padded with the end token like CLIP's."""
    words = {word: number for number, word in enumerate([START, END, UNKNOWN, *vocabulary()])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\p{L}\p{N}]+|[^\s\p{L}\p{N}]"), "removed", invert=True)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=[(START, words[START]), (END, words[END])])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=START, eos_token=END, pad_token=END, unk_token=UNKNOWN, model_max_length=TEXT_TOKENS
    )
