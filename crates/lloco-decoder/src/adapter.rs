//! The seam through which adapters change the model.

use std::sync::Arc;

use burn::tensor::Tensor;

/// One of the seven linear projections of a transformer layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Projection {
    /// `self_attn.q_proj`, `[heads * head_dim, hidden]`.
    Query,
    /// `self_attn.k_proj`, `[kv_heads * head_dim, hidden]`.
    Key,
    /// `self_attn.v_proj`, `[kv_heads * head_dim, hidden]`.
    Value,
    /// `self_attn.o_proj`, `[hidden, heads * head_dim]`.
    Output,
    /// `mlp.gate_proj`, `[intermediate, hidden]`.
    Gate,
    /// `mlp.up_proj`, `[intermediate, hidden]`.
    Up,
    /// `mlp.down_proj`, `[hidden, intermediate]`.
    Down,
}

impl Projection {
    /// All projections, in the order in which a layer applies them.
    pub const ALL: [Self; 7] = [Self::Query, Self::Key, Self::Value, Self::Output, Self::Gate, Self::Up, Self::Down];

    /// The name in checkpoints and in PEFT's `target_modules`, for example `q_proj`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Query => "q_proj",
            Self::Key => "k_proj",
            Self::Value => "v_proj",
            Self::Output => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }

    /// The module that holds the projection: `self_attn` or `mlp`.
    pub const fn module(self) -> &'static str {
        match self {
            Self::Query | Self::Key | Self::Value | Self::Output => "self_attn",
            Self::Gate | Self::Up | Self::Down => "mlp",
        }
    }

    /// The projection of that [`name`](Self::name), if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|projection| projection.name() == name)
    }
}

/// Where in the model a linear projection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Site {
    /// Index of the transformer layer, from 0.
    pub layer: usize,
    /// Which projection of that layer.
    pub projection: Projection,
}

impl Site {
    /// The site's checkpoint name without suffix, for example `model.layers.3.self_attn.q_proj`.
    pub fn path(self) -> String {
        let Self { layer, projection } = self;
        format!("model.layers.{layer}.{}.{}", projection.module(), projection.name())
    }
}

/// A module outside the layers that an adapter may replace as a whole (PEFT's `modules_to_save`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SavedModule {
    /// The token embedding, `[vocab, hidden]`.
    EmbedTokens,
    /// The output head, `[vocab, hidden]`.
    LmHead,
}

/// Something that adds a term to the model's linear projections, such as a LoRA adapter.
///
/// The model computes `y = x W^T + b` and then asks the adapter for [`apply`](Self::apply). [`NoAdapter`] adds nothing and
/// costs nothing.
pub trait LinearAdapter: Send + Sync {
    /// `output` with the term of `site` added, or `output` as it is where there is none.
    ///
    /// `input` is what the projection read, `[batch, seq, in]`, `output` what it made of it, `[batch, seq, out]`; the
    /// result has the shape, device and float type of `output`. [`low_rank`](crate::low_rank) does it for two factors.
    fn apply(&self, site: Site, input: &Tensor<3>, output: Tensor<3>) -> Tensor<3>;

    /// Whether [`apply`](Self::apply) may change what the projection at `site` computes. Where it does not, operations
    /// are computed together. `true` is always right.
    ///
    /// ```
    /// use lloco_decoder::{LinearAdapter, NoAdapter, Projection, Site, burn::tensor::Tensor};
    ///
    /// /// Doubles what the first layer's queries are.
    /// struct Doubled;
    ///
    /// impl LinearAdapter for Doubled {
    ///     fn apply(&self, site: Site, _input: &Tensor<3>, output: Tensor<3>) -> Tensor<3> {
    ///         if self.adapts(site) { output * 2.0 } else { output }
    ///     }
    ///     fn adapts(&self, site: Site) -> bool {
    ///         site == Site { layer: 0, projection: Projection::Query }
    ///     }
    /// }
    /// assert!(Doubled.adapts(Site { layer: 0, projection: Projection::Query }));
    /// assert!(!NoAdapter.adapts(Site { layer: 0, projection: Projection::Query }));
    /// ```
    fn adapts(&self, site: Site) -> bool {
        let _ = site;
        true
    }

    /// A full replacement for a module's weight, or `None` to keep the model's own.
    fn replaced(&self, module: SavedModule) -> Option<Tensor<2>> {
        let _ = module;
        None
    }
}

impl<T: LinearAdapter + ?Sized> LinearAdapter for &T {
    fn apply(&self, site: Site, input: &Tensor<3>, output: Tensor<3>) -> Tensor<3> {
        (**self).apply(site, input, output)
    }

    fn adapts(&self, site: Site) -> bool {
        (**self).adapts(site)
    }

    fn replaced(&self, module: SavedModule) -> Option<Tensor<2>> {
        (**self).replaced(module)
    }
}

impl<T: LinearAdapter + ?Sized> LinearAdapter for Arc<T> {
    fn apply(&self, site: Site, input: &Tensor<3>, output: Tensor<3>) -> Tensor<3> {
        (**self).apply(site, input, output)
    }

    fn adapts(&self, site: Site) -> bool {
        (**self).adapts(site)
    }

    fn replaced(&self, module: SavedModule) -> Option<Tensor<2>> {
        (**self).replaced(module)
    }
}

/// The absence of an adapter.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoAdapter;

impl LinearAdapter for NoAdapter {
    fn apply(&self, _site: Site, _input: &Tensor<3>, output: Tensor<3>) -> Tensor<3> {
        output
    }

    fn adapts(&self, _site: Site) -> bool {
        false
    }
}
