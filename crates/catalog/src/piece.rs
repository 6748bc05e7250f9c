//! Pieces: the finest units that any convention stores on their own, and where each convention stores them.

use std::sync::Arc;

use crate::{
    Hyper,
    architecture::Architecture,
    spec::{Dim, Ending, Need, Part, Site, Spec},
};

/// A way to name and lay out the tensors of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Convention {
    /// What transformers saves.
    Hf,
    /// What llama.cpp reads.
    Gguf,
    /// What mlx-lm saves.
    Mlx,
}

/// What a tensor does in the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Role {
    /// One row per entry of the vocabulary.
    TokenEmbedding,
    /// One row per position.
    PositionEmbedding,
    /// One row per segment.
    TokenTypeEmbedding,
    /// Of the sum of the embeddings.
    EmbeddingNorm,
    /// Before attention.
    AttentionNorm,
    /// Hidden state to queries.
    AttentionQuery,
    /// Hidden state to keys.
    AttentionKey,
    /// Hidden state to values.
    AttentionValue,
    /// Of every query head.
    AttentionQueryNorm,
    /// Of every key head.
    AttentionKeyNorm,
    /// Heads to hidden state.
    AttentionOutput,
    /// One score for each head that takes part in the softmax and adds nothing.
    AttentionSinks,
    /// After attention.
    PostAttentionNorm,
    /// Before the feed-forward block.
    FfnNorm,
    /// Hidden state to the scores of the experts.
    Router,
    /// The gated half of a feed-forward block, which the activation applies to.
    FfnGate,
    /// The other half; alone, what the activation applies to.
    FfnUp,
    /// Back to the hidden state.
    FfnDown,
    /// As `FfnGate`, of one expert.
    ExpertGate,
    /// As `FfnUp`, of one expert.
    ExpertUp,
    /// As `FfnDown`, of one expert.
    ExpertDown,
    /// After the feed-forward block.
    PostFfnNorm,
    /// Before the output projection.
    OutputNorm,
    /// Hidden state to logits.
    Output,
    /// First hidden state to a summary of the text.
    Pooler,
}

impl Role {
    /// Whether it is the gain or bias of a norm.
    pub fn is_norm(self) -> bool {
        use Role::*;
        matches!(
            self,
            EmbeddingNorm
                | AttentionNorm
                | AttentionQueryNorm
                | AttentionKeyNorm
                | PostAttentionNorm
                | FfnNorm
                | PostFfnNorm
                | OutputNorm
        )
    }

    /// Whether it belongs to one expert.
    pub fn is_expert(self) -> bool {
        matches!(self, Role::ExpertGate | Role::ExpertUp | Role::ExpertDown)
    }
}

/// The order in which a place stores the rows of a piece. Plain is the order of [`Convention::Hf`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The same.
    Plain,
    /// The two halves of each head, which rotate together, take turns row by row.
    RotaryInterleaved {
        /// Heads of the piece.
        heads: usize,
        /// Rows of one head.
        head_dim: usize,
    },
    /// Rows of several pieces take turns: each row of this piece stands `step` rows after the one before.
    Strided {
        /// Rows from one to the next.
        step: usize,
    },
    /// The rows of the piece are columns of what is stored: column `first`, and every `step`-th after it.
    Columns {
        /// The first of them.
        first: usize,
        /// Columns from one to the next.
        step: usize,
    },
}

impl Order {
    /// The plain row that stands at row `stored` of the piece, counted from the piece's first. Of [`Order::Columns`], `stored`.
    pub fn plain_row(self, stored: usize) -> usize {
        match self {
            Order::Plain | Order::Columns { .. } => stored,
            Order::Strided { step } => stored / step.max(1),
            Order::RotaryInterleaved { head_dim, .. } => {
                let (head, at) = (stored / head_dim, stored % head_dim);
                head * head_dim + (at % 2) * (head_dim / 2) + at / 2
            }
        }
    }

    /// The row of the piece at which plain row `plain` is stored.
    pub fn stored_row(self, plain: usize) -> usize {
        match self {
            Order::Plain | Order::Columns { .. } => plain,
            Order::Strided { step } => plain * step,
            Order::RotaryInterleaved { head_dim, .. } => {
                let (head, at) = (plain / head_dim, plain % head_dim);
                head * head_dim + (at % (head_dim / 2)) * 2 + at / (head_dim / 2)
            }
        }
    }
}

/// Where a convention stores a piece.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// Name of the stored tensor.
    pub tensor: String,
    /// Shape of the whole stored tensor, row-major, outermost first.
    pub shape: Vec<usize>,
    /// The piece's first row in it. A matrix or stack of matrices has the product of all dimensions but the last as rows; a vector has
    /// one row per value. Where rows are stored as columns, the first stored row that they cross.
    pub row: usize,
    /// The order of the piece's rows.
    pub order: Order,
    /// What is added to every plain value when it is stored.
    pub shift: f32,
}

/// Rows of a tensor of this shape: the product of all dimensions but the last; of a vector, its length.
pub fn rows(shape: &[usize]) -> usize {
    match shape {
        [] => 1,
        [n] => *n,
        [outer @ .., _] => outer.iter().product(),
    }
}

/// One unit of a model's inventory.
#[derive(Clone, Debug)]
pub struct Piece {
    /// What it does.
    pub role: Role,
    /// Weight or bias.
    pub part: Part,
    /// The layer it belongs to.
    pub layer: Option<usize>,
    /// The expert it belongs to.
    pub expert: Option<usize>,
    /// Its shape, row-major, outermost first: `[out, in]` for a linear map.
    pub shape: Vec<usize>,
    /// Whether a model without it is incomplete.
    pub required: bool,
    /// The role whose tensor stands in for it where it is absent: the token embedding for a tied output. Writers then leave it out.
    pub tied_to: Option<Role>,
    spec: &'static Spec,
    architecture: &'static Architecture,
    hyper: Arc<Hyper>,
}

impl Piece {
    pub(crate) fn new(
        architecture: &'static Architecture,
        hyper: &Arc<Hyper>,
        spec: &'static Spec,
        layer: Option<usize>,
        expert: Option<usize>,
    ) -> Self {
        let required = match spec.need {
            Need::Always => true,
            Need::UnlessTied => !hyper.tied,
            Need::IfAttentionBias => hyper.attention_bias,
            Need::IfMlpBias => hyper.mlp_bias,
            Need::Never => false,
        };
        Self {
            role: spec.role,
            part: spec.part,
            layer,
            expert,
            shape: spec.dims().iter().map(|d| d.size(hyper)).collect(),
            required,
            tied_to: (spec.need == Need::UnlessTied && hyper.tied).then_some(Role::TokenEmbedding),
            spec,
            architecture,
            hyper: hyper.clone(),
        }
    }

    /// Number of rows, counted as [`rows`] does.
    pub fn rows(&self) -> usize {
        rows(&self.shape)
    }

    /// Where `convention` may store it: the first is where it is written, readers accept any. Empty where the convention leaves it out.
    pub fn places(&self, convention: Convention) -> Vec<Place> {
        let mut found = Vec::new();
        for site in self.sites(convention) {
            match site.name.strip_prefix('@') {
                Some(rest) => {
                    found.extend(self.architecture.roots.iter().map(|root| self.place(convention, site, root, rest)));
                }
                None => found.push(self.place(convention, site, "", site.name)),
            }
        }
        found
    }

    /// The place among those of `convention` that a file has, told by the shapes of its tensors.
    pub fn find<'a>(&self, convention: Convention, shape: impl Fn(&str) -> Option<&'a [usize]>) -> Option<Place> {
        self.places(convention).into_iter().find(|place| shape(&place.tensor).is_some_and(|s| s == place.shape))
    }

    fn sites(&self, convention: Convention) -> &'static [Site] {
        match convention {
            Convention::Hf => self.spec.hf,
            Convention::Gguf => self.spec.gguf,
            Convention::Mlx => self.spec.mlx.unwrap_or(self.spec.hf),
        }
    }

    fn place(&self, convention: Convention, site: &Site, root: &str, name: &str) -> Place {
        let sum = |dims: &[Dim]| dims.iter().map(|d| d.size(&self.hyper)).sum::<usize>();
        let mut shape = self.shape.clone();
        let mut row = sum(site.before) + site.offset;
        if let (false, Some(first)) = (site.total.is_empty(), shape.first_mut()) {
            *first = sum(site.total);
        }
        let gguf = convention == Convention::Gguf;
        let mut order = match site.step {
            1 => self.order(gguf),
            step => Order::Strided { step },
        };
        // A stack of vectors is a matrix with a row for each.
        let vectors = site.stacked && shape.len() == 1;
        if site.turned || vectors {
            order = Order::Columns { first: row, step: site.step };
            row = 0;
            shape.reverse();
        }
        if site.stacked {
            row += self.expert.unwrap_or(0) * if vectors { 1 } else { rows(&shape) };
            shape.insert(0, self.hyper.experts);
        }
        Place {
            tensor: format!("{root}{}{}", self.numbered(name), ending(site.ending, self.part)),
            shape,
            row,
            order,
            shift: if gguf && self.role.is_norm() { self.architecture.gguf_norm_shift } else { 0.0 },
        }
    }

    fn order(&self, gguf: bool) -> Order {
        let heads = match self.role {
            Role::AttentionQuery => self.hyper.heads,
            Role::AttentionKey => self.hyper.kv_heads,
            _ => return Order::Plain,
        };
        if gguf && self.architecture.gguf_interleaves_heads {
            Order::RotaryInterleaved { heads, head_dim: self.hyper.head_dim }
        } else {
            Order::Plain
        }
    }

    fn numbered(&self, name: &str) -> String {
        let put = |name: String, mark: &str, n: Option<usize>| match n {
            Some(n) => name.replacen(mark, &n.to_string(), 1),
            None => name,
        };
        put(put(name.into(), "{l}", self.layer), "{e}", self.expert)
    }
}

fn ending(ending: Ending, part: Part) -> &'static str {
    match (ending, part) {
        (Ending::Usual, Part::Weight) => ".weight",
        (Ending::Usual, Part::Bias) => ".bias",
        (Ending::Greek, Part::Weight) => ".gamma",
        (Ending::Greek, Part::Bias) => ".beta",
        (Ending::Bare, _) => "",
        (Ending::Joined, Part::Weight) => "",
        (Ending::Joined, Part::Bias) => "_bias",
    }
}

/// The layer that a tensor's name speaks of, in any of the conventions.
pub fn layer_of(name: &str) -> Option<usize> {
    let mut words = name.split('.');
    while let Some(word) = words.next() {
        if matches!(word, "layers" | "layer" | "blk")
            && let Some(number) = words.clone().next().filter(|w| w.bytes().all(|b| b.is_ascii_digit()))
        {
            return number.parse().ok();
        }
    }
    None
}
