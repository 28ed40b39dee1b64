//! An adapter's tensors by name: assembled, listed, updated, and with gradients.

use std::{collections::BTreeMap, path::Path};

use burn::tensor::{Device, Gradients, Tensor, TensorData};
use lloco_decoder::{DecoderConfig, Site};

use crate::{Adapter, Error, LoraConfig, Result, SiteShape, adapter::Factors, config::SAVED_MODULES, tensor_file};

impl Adapter {
    /// The adapter's tensors by name, as they stand in PEFT files without the prefix `base_model.model.`:
    /// `model.layers.0.self_attn.q_proj.lora_A.weight` `[rank, in]`, `...lora_B.weight` `[out, rank]`,
    /// `embed_summary.weight` `[n, hidden]`, and so on.
    pub fn parameters(&self) -> BTreeMap<String, Tensor<2>> {
        let factors = self.factors.iter().flat_map(|(&site, Factors { a, b, .. })| {
            let [a_name, b_name] = factor_names(site);
            [(a_name, a.clone()), (b_name, b.clone())]
        });
        let saved = self.saved.iter().map(|(module, weight)| (saved_name(module), weight.clone()));
        factors.chain(saved).collect()
    }

    /// The adapter with each tensor passed through `change`, which sees its [name](Self::parameters) and must keep
    /// its shape.
    #[must_use]
    pub fn map(&self, mut change: impl FnMut(&str, Tensor<2>) -> Tensor<2>) -> Self {
        let factors = self.factors.iter().map(|(&site, Factors { a, b, scale })| {
            let [a_name, b_name] = factor_names(site);
            let (a, b) = (change(&a_name, a.clone()), change(&b_name, b.clone()));
            (site, Factors { a, b, scale: *scale })
        });
        let factors = factors.collect();
        let saved =
            self.saved.iter().map(|(module, weight)| (module.clone(), change(&saved_name(module), weight.clone())));
        Self { config: self.config.clone(), factors, saved: saved.collect() }
    }

    /// The adapter on another device.
    #[must_use]
    pub fn to_device(&self, device: &Device) -> Self {
        self.map(|_, tensor| tensor.to_device(device))
    }

    /// The adapter with autodiff: a forward pass through it and `backward` give [`gradients`](Self::gradients).
    #[must_use]
    pub fn tracked(&self) -> Self {
        self.map(|_, tensor| tensor.inner().autodiff().require_grad())
    }

    /// Takes the gradients of a [tracked](Self::tracked) adapter's tensors, by [name](Self::parameters). Tensors
    /// that the loss does not depend on have none.
    pub fn gradients(&self, gradients: &mut Gradients) -> BTreeMap<String, Tensor<2>> {
        let parameters = self.parameters().into_iter();
        parameters.filter_map(|(name, tensor)| Some((name, tensor.grad_remove(gradients)?))).collect()
    }

    /// The first tensor that holds something other than finite numbers, or so large ones that their sum is none.
    pub(crate) fn spoiled(&self) -> Result<Option<String>> {
        let sums = self.parameters().into_iter().map(|(name, tensor)| (name, tensor.abs().sum()));
        let (names, sums): (Vec<String>, Vec<Tensor<1>>) = sums.unzip();
        if sums.is_empty() {
            return Ok(None);
        }
        let sums = tensor_file::values("the adapter", Tensor::cat(sums, 0))?;
        Ok(names.into_iter().zip(sums).find(|(_, sum)| !sum.is_finite()).map(|(name, _)| name))
    }

    /// An adapter from f32 tensors under their [names](Self::parameters); `origin` is what errors call the file.
    ///
    /// # Errors
    /// When a tensor is missing, has another shape than model and configuration say, or belongs nowhere.
    pub fn from_parameters(
        mut config: LoraConfig,
        model: &DecoderConfig,
        tensors: BTreeMap<String, TensorData>,
        origin: &Path,
        device: &Device,
    ) -> Result<Self> {
        let mut stock = Stock { tensors, origin, device };
        let mut factors = BTreeMap::new();
        for (site, shape) in config.sites(model).map_err(|e| e.at(origin))? {
            let SiteShape { rank, scale, input, output } = shape;
            let [a, b] = factor_names(site);
            let (a, b) = (stock.take(&a, [rank, input])?, stock.take_turned(&b, [output, rank])?);
            factors.insert(site, Factors { a, b, scale });
        }
        let mut saved = BTreeMap::new();
        for module in SAVED_MODULES {
            let name = saved_name(module);
            let listed = config.modules_to_save.iter().any(|listed| listed == module);
            let found = stock.rows(&name);
            if !listed && found.is_none() {
                continue;
            }
            let rows = if module == "embed_summary" { found.unwrap_or(0).max(1) } else { model.vocab_size };
            saved.insert(module.to_owned(), stock.take(&name, [rows, model.hidden_size])?);
            if !listed {
                config.modules_to_save.push(module.to_owned());
            }
        }
        match stock.tensors.into_keys().next() {
            Some(name) => Err(Error::UnexpectedTensor { path: origin.to_path_buf(), name }),
            None => Ok(Self { config, factors, saved }),
        }
    }
}

/// Tensors not yet placed.
struct Stock<'a> {
    tensors: BTreeMap<String, TensorData>,
    origin: &'a Path,
    device: &'a Device,
}

impl Stock<'_> {
    fn take(&mut self, name: &str, expected: [usize; 2]) -> Result<Tensor<2>> {
        Ok(Tensor::from_data(self.data(name, expected)?, self.device))
    }

    /// As the view of its transpose: the order in which a decoding step reads the factor B.
    fn take_turned(&mut self, name: &str, expected: [usize; 2]) -> Result<Tensor<2>> {
        let values: Vec<f32> = self.data(name, expected)?.iter().collect();
        let [rows, columns] = expected;
        let turned = (0..rows * columns).map(|i| values[i % rows * columns + i / rows]).collect();
        Ok(Tensor::<2>::from_data(TensorData::new(turned, [columns, rows]), self.device).transpose())
    }

    fn data(&mut self, name: &str, expected: [usize; 2]) -> Result<TensorData> {
        let (path, name) = (self.origin.to_path_buf(), name.to_owned());
        match self.tensors.remove(&name) {
            Some(data) if data.shape()[..] == expected => Ok(data),
            Some(data) => {
                Err(Error::ShapeMismatch { path, name, expected: expected.into(), found: data.shape().to_vec() })
            }
            None => Err(Error::MissingTensor { path, name }),
        }
    }

    fn rows(&self, name: &str) -> Option<usize> {
        self.tensors.get(name).map(|data| data.shape().first().copied().unwrap_or(0))
    }
}

/// Names of the factors A and B.
fn factor_names(site: Site) -> [String; 2] {
    let path = site.path();
    [format!("{path}.lora_A.weight"), format!("{path}.lora_B.weight")]
}

/// Name of a whole module's weight.
fn saved_name(module: &str) -> String {
    match module {
        "embed_tokens" => "model.embed_tokens.weight".into(),
        module => format!("{module}.weight"),
    }
}
