"""Encoder-decoders, ours and transformers': batches with two sides, and whether both say the same of them."""

import torch
import transformers
from torch import Tensor

from elision.data.batch import Batch
from elision.loaded import Loaded
from elision.model.language_model import LanguageModel
from tests.parity import heads, reference

PAD = 1


def sides() -> tuple[Tensor, Tensor, Tensor]:
    """Three rows of 11 tokens to read, the second with 4 places of padding at its end; which are real; 9 written ones."""
    ids, written = reference.token_ids(3, 11), reference.token_ids(3, 9, seed=1)
    real = torch.ones(3, 11, dtype=torch.bool)
    real[1, 7:] = False
    ids[~real] = PAD
    return ids, real, written


@torch.no_grad()
def logits_agree(theirs: transformers.PreTrainedModel, loaded: Loaded) -> None:
    """Assert equal scores of every word at every written place."""
    ids, real, written = sides()
    expected = theirs.eval()(ids, attention_mask=real.long(), decoder_input_ids=written).logits
    reference.assert_close(loaded.logits(ids, real, decoder_ids=written), expected)


def batch_of(ids: Tensor, real: Tensor, written: Tensor, targets: Tensor) -> Batch:
    """Return a batch with both sides; targets [B, T] are -100 where nothing is asked."""
    rows, length = written.shape
    at = (targets.flatten() != -100).nonzero()[:, 0]
    return Batch(
        inputs=ids,
        positions=torch.arange(ids.shape[1]).expand(ids.shape),
        doc_ids=real.long(),
        targets=targets,
        target_at=at,
        summary_at=torch.arange(rows) * length,
        decoder_inputs=written,
        decoder_positions=torch.arange(length).expand(rows, length),
        decoder_doc_ids=torch.ones_like(written),
        num_targets=len(at),
        num_examples=rows,
        num_tokens=int(real.sum()) + written.numel(),
        num_decoder_tokens=written.numel(),
    )


def loss_and_gradients_agree(theirs: transformers.PreTrainedModel, loaded: Loaded, family: object) -> None:
    """Assert an equal loss and, through the key map, an equal gradient of every tensor."""
    ids, real, written = sides()
    targets = reference.token_ids(3, 9, seed=2)
    targets[0, 7:] = -100
    expected = theirs(ids, attention_mask=real.long(), decoder_input_ids=written, labels=targets).loss
    expected.backward()
    batch = batch_of(ids, real, written, targets)
    term = loaded.model(batch)[0]["seq2seq"]
    loss = term.sum / term.count
    loss.backward()
    reference.assert_close(loss.detach(), expected.detach())
    table = family.key_map(loaded.recipe.backbone, ("seq2seq",))
    state = dict(loaded.model.named_buffers()) | dict(loaded.model.named_parameters())
    gradients = table.to_theirs(
        {name: torch.zeros_like(value) if value.grad is None else value.grad for name, value in state.items()}
    )
    wanted = {name: value.grad for name, value in theirs.named_parameters()}
    table_grad = next(wanted.pop(name) for name in ("model.shared.weight", "lm_head.weight") if name in wanted)
    # Theirs leaves the row of padding without a gradient.
    padding = theirs.config.pad_token_id
    gradients[family.TOKEN_TABLE][padding] = table_grad[padding]
    reference.assert_close(gradients.pop(family.TOKEN_TABLE), table_grad)
    for name, gradient in gradients.items():
        if wanted[name] is None:
            continue
        reference.assert_close(gradient, wanted[name])
        # Where keys have a bias, every score of a query gains the same by it: nothing follows from it.
        assert gradient.abs().max() > 1e-9 or name.endswith("k_proj.bias"), name


def shifted(ids: Tensor, real: Tensor, start: int | None) -> Tensor:
    """Return what the decoder of a classifier reads: the text itself behind the start symbol, or its own last one."""
    last = real.sum(1) - 1
    first = ids.gather(1, last[:, None]) if start is None else torch.full((len(ids), 1), start)
    return torch.cat([first, ids[:, :-1]], 1)


@torch.no_grad()
def judgements_agree(
    theirs: transformers.PreTrainedModel, model: LanguageModel, name: str, eos: int, start: int | None
) -> None:
    """Assert that classifier or answerer say the same of padded texts that end with </s>, read on both sides."""
    ids, real, _ = sides()
    last = real.sum(1) - 1
    ids.scatter_(1, last[:, None], eos)
    output = theirs.eval()(ids, attention_mask=real.long())
    written = shifted(ids, real, start)
    batch = batch_of(ids, real, written, torch.full_like(written, -100))
    batch.summary_at = torch.arange(3) * 11 + last
    ours = heads.scores(model, batch)
    if name == "classification":
        reference.assert_close(ours, output.logits)
    else:
        reference.assert_close(ours[real], torch.stack([output.start_logits, output.end_logits], -1)[real])
