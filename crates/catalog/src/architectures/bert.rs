//! BERT, as embedding models use it: no head, norms after the blocks.

use crate::Activation;
use crate::architecture::{Architecture, Defaults, GgufKey};
use crate::piece::Role;
use crate::spec::{Dim, Need, Spec, own, weight};

pub(crate) static BERT: Architecture = Architecture {
    name: "bert",
    classes: &["BertModel", "BertForMaskedLM"],
    model_types: &["bert"],
    gguf_name: "bert",
    gguf_marker: None,
    gguf_keys: &[GgufKey::Causal],
    gguf_interleaves_heads: false,
    gguf_norm_shift: 0.0,
    scales_embeddings: false,
    defaults: Defaults {
        norm_eps: 1e-12,
        layer_norm: true,
        context: 512,
        tied: true,
        activation: Activation::Gelu,
        token_types: 2,
        causal: false,
        ..Defaults::DECODER
    },
    roots: &["", "bert."],
    ignorable: &[
        "embeddings.position_ids",
        "bert.embeddings.position_ids",
        "cls.predictions.*",
        "cls.seq_relationship.*",
    ],
    inventory: &[EMBEDDINGS, LAYER],
};

const EMBEDDING_NORM: Spec = weight(
    Role::EmbeddingNorm,
    &[Dim::Hidden],
    &[own("@embeddings.LayerNorm"), own("@embeddings.LayerNorm").greek()],
    &[own("token_embd_norm")],
);

/// GGUF does not keep the pooler.
const POOLER: Spec = weight(Role::Pooler, &[Dim::Hidden, Dim::Hidden], &[own("@pooler.dense")], &[]).need(Need::Never);

const EMBEDDINGS: &[Spec] = &[
    weight(
        Role::TokenEmbedding,
        &[Dim::Vocab, Dim::Hidden],
        &[own("@embeddings.word_embeddings")],
        &[own("token_embd")],
    ),
    weight(
        Role::PositionEmbedding,
        &[Dim::Context, Dim::Hidden],
        &[own("@embeddings.position_embeddings")],
        &[own("position_embd")],
    ),
    weight(
        Role::TokenTypeEmbedding,
        &[Dim::TokenTypes, Dim::Hidden],
        &[own("@embeddings.token_type_embeddings")],
        &[own("token_types")],
    ),
    EMBEDDING_NORM,
    EMBEDDING_NORM.bias(),
    POOLER,
    POOLER.bias(),
];

const QUERY: Spec = weight(
    Role::AttentionQuery,
    &[Dim::Query, Dim::Hidden],
    &[own("@encoder.layer.{l}.attention.self.query")],
    &[own("blk.{l}.attn_q")],
);
const KEY: Spec = weight(
    Role::AttentionKey,
    &[Dim::Key, Dim::Hidden],
    &[own("@encoder.layer.{l}.attention.self.key")],
    &[own("blk.{l}.attn_k")],
);
const VALUE: Spec = weight(
    Role::AttentionValue,
    &[Dim::Key, Dim::Hidden],
    &[own("@encoder.layer.{l}.attention.self.value")],
    &[own("blk.{l}.attn_v")],
);
const ATTENTION_OUTPUT: Spec = weight(
    Role::AttentionOutput,
    &[Dim::Hidden, Dim::Query],
    &[own("@encoder.layer.{l}.attention.output.dense")],
    &[own("blk.{l}.attn_output")],
);
const ATTENTION_NORM: Spec = weight(
    Role::PostAttentionNorm,
    &[Dim::Hidden],
    &[
        own("@encoder.layer.{l}.attention.output.LayerNorm"),
        own("@encoder.layer.{l}.attention.output.LayerNorm").greek(),
    ],
    &[own("blk.{l}.attn_output_norm")],
);
const UP: Spec = weight(
    Role::FfnUp,
    &[Dim::Ffn, Dim::Hidden],
    &[own("@encoder.layer.{l}.intermediate.dense")],
    &[own("blk.{l}.ffn_up")],
);
const DOWN: Spec = weight(
    Role::FfnDown,
    &[Dim::Hidden, Dim::Ffn],
    &[own("@encoder.layer.{l}.output.dense")],
    &[own("blk.{l}.ffn_down")],
);
const FFN_NORM: Spec = weight(
    Role::PostFfnNorm,
    &[Dim::Hidden],
    &[own("@encoder.layer.{l}.output.LayerNorm"), own("@encoder.layer.{l}.output.LayerNorm").greek()],
    &[own("blk.{l}.layer_output_norm")],
);

const LAYER: &[Spec] = &[
    QUERY,
    QUERY.bias(),
    KEY,
    KEY.bias(),
    VALUE,
    VALUE.bias(),
    ATTENTION_OUTPUT,
    ATTENTION_OUTPUT.bias(),
    ATTENTION_NORM,
    ATTENTION_NORM.bias(),
    UP,
    UP.bias(),
    DOWN,
    DOWN.bias(),
    FFN_NORM,
    FFN_NORM.bias(),
];
