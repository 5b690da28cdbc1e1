"""GPT-1: Radford, Narasimhan, Salimans & Sutskever 2018, "Improving Language Understanding by Generative Pre-Training".

Nothing is left out but the future, as in every GPT; what is learned is fine-tuned for each task by one linear layer over
the state of the last token. Norms stand after each residual sum, as in the Transformer of 2017, and none after the last
block; GPT-2 moved them.

Followed: the paper for optimisation (Adam at 2.5e-4, 2 000 steps of warm-up, a cosine to 0, batches of 64 x 512 tokens),
the released code for the rest, which only fine-tunes: GELU by its tanh approximation, every weight normal with 0.02 and
residual projections no smaller, no decay of biases and norms. The paper says 100 epochs; BERT's authors count about a
million steps, which is taken here.

Departures from the released code. There, tokens, three special symbols and positions are rows of one matrix, so its output
layer also scores positions, and dropout on that matrix in training hits the output layer; here the table of positions is
apart, and dropout is on the states. The tokenizer there lower-cases, cleans and splits words by other programs before its
40 000 merges; here it is byte-level BPE of the same size, which loses nothing and ends texts with a symbol.

Its fine-tuning: 3 epochs at 6.25e-5 with batches of 32, 0.2 % of warm-up, linear decay, and half the loss of the language
model added; `elision finetune` leaves that addition out.
"""

from elision.data.noise import NextToken
from elision.data.segment import Chunks
from elision.model.init import NormalInit
from elision.model.position import LearnedPositions
from elision.model.transformer import Transformer
from elision.objectives import CausalLM
from elision.recipe import Recipe
from elision.text.tokenizer import ByteLevelBPE
from elision.train.optim import AdamW
from elision.train.schedule import Cosine
from elision.train.settings import Train


def tiny() -> Recipe:
    """Ours, for small machines: 2 layers of width 128, context 256."""
    return _gpt1("gpt1-tiny", num_layers=2, hidden_size=128, num_heads=2, length=256, learning_rate=1e-3, steps=20_000)


def base() -> Recipe:
    """117 M parameters: 12 layers of width 768, the only size there is."""
    return _gpt1("gpt1-base", num_layers=12, hidden_size=768, num_heads=12)


def _gpt1(
    name: str,
    num_layers: int,
    hidden_size: int,
    num_heads: int,
    length: int = 512,
    learning_rate: float = 2.5e-4,
    steps: int = 1_000_000,
) -> Recipe:
    return Recipe(
        name=name,
        tokenizer=ByteLevelBPE(vocab_size=40478),
        segmenter=Chunks(max_length=length, cross_documents=True),
        noise=NextToken(),
        backbone=Transformer(
            num_layers=num_layers,
            hidden_size=hidden_size,
            num_heads=num_heads,
            feedforward_size=4 * hidden_size,
            visibility="causal",
            norm="post",
            activation="gelu_tanh",
            positions=LearnedPositions(length),
            norm_eps=1e-5,
            dropout=0.1,
            attention_dropout=0.1,
            init=NormalInit(std=0.02),
        ),
        objectives=(CausalLM(),),
        train=Train(
            batch_size=64,
            steps=steps,
            optimizer=AdamW(learning_rate=learning_rate, weight_decay=0.01, clip_norm=1.0),
            schedule=Cosine(warmup=0.002, final_share=0.0),
        ),
    )
