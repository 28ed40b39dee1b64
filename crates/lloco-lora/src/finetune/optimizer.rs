//! AdamW over named parameters.

use std::collections::BTreeMap;

use burn::{
    optim::{AdamW as Rule, AdamWConfig, AdamWState, AdaptiveMomentumState, Optimizer},
    tensor::{Device, Tensor, TensorData},
};

use super::{NamedGradients, TrainConfig};
use crate::{Adapter, Error, Result};

/// burn's AdamW, its moments kept by parameter name, so that they can be stored and found again.
#[derive(Clone)]
pub struct AdamW {
    rule: Rule,
    moments: BTreeMap<String, AdamWState<2>>,
}

impl AdamW {
    /// An optimiser that has seen nothing yet.
    pub fn new(config: &TrainConfig) -> Self {
        let rule = AdamWConfig::new()
            .with_beta_1(config.beta_1)
            .with_beta_2(config.beta_2)
            .with_epsilon(config.epsilon)
            .with_weight_decay(config.weight_decay as f32)
            .build();
        Self { rule, moments: BTreeMap::new() }
    }

    /// The adapter after one step against `gradients`. A parameter without gradient stays as it is.
    #[must_use]
    pub fn step(&mut self, rate: f64, adapter: &Adapter, gradients: &NamedGradients) -> Adapter {
        adapter.map(|name, parameter| match gradients.get(name) {
            Some(gradient) => self.update(rate, name, parameter, gradient),
            None => parameter,
        })
    }

    /// One parameter after a step of its own rate; its moments are kept under `name`.
    #[must_use]
    pub fn update(&mut self, rate: f64, name: &str, parameter: Tensor<2>, gradient: &Tensor<2>) -> Tensor<2> {
        let state = self.moments.remove(name);
        let (parameter, state) = self.rule.step(rate, parameter.inner(), gradient.clone(), state);
        self.moments.extend(state.map(|state| (name.to_owned(), state)));
        parameter
    }

    /// The moments by name: `NAME.exp_avg` and `NAME.exp_avg_sq` of the parameter's shape, `NAME.step` `[1, 1]`.
    pub fn state(&self) -> BTreeMap<String, Tensor<2>> {
        let mut tensors = BTreeMap::new();
        for (name, AdamWState { momentum }) in &self.moments {
            let step = TensorData::new(vec![momentum.time as f32], [1, 1]);
            tensors.insert(format!("{name}.step"), Tensor::from_data(step, &momentum.moment_1.device()));
            tensors.insert(format!("{name}.exp_avg"), momentum.moment_1.clone());
            tensors.insert(format!("{name}.exp_avg_sq"), momentum.moment_2.clone());
        }
        tensors
    }

    /// Takes over what [`state`](Self::state) gave, for `parameters` by name; `origin` is what errors call the file.
    ///
    /// # Errors
    /// [`Error::Malformed`] when a moment is missing, has another shape than its parameter, or belongs to none.
    pub fn restore(
        &mut self,
        mut tensors: BTreeMap<String, TensorData>,
        parameters: &BTreeMap<String, Tensor<2>>,
        origin: &std::path::Path,
        device: &Device,
    ) -> Result<()> {
        let malformed = |detail: String| Error::Malformed { path: origin.to_path_buf(), detail };
        self.moments.clear();
        for (name, parameter) in parameters {
            let Some(step) = tensors.remove(&format!("{name}.step")) else { continue };
            let time = step.as_slice::<f32>().ok().and_then(|step| step.first().copied()).unwrap_or(-1.0);
            if !(time >= 1.0 && time.fract() == 0.0) {
                return Err(malformed(format!("`{name}.step` is {time}")));
            }
            let mut moment = |kind: &str| {
                let key = format!("{name}.{kind}");
                match tensors.remove(&key) {
                    Some(data) if data.shape()[..] == parameter.dims() => Ok(Tensor::from_data(data, device)),
                    _ => Err(malformed(format!("`{key}` is missing or has another shape than its parameter"))),
                }
            };
            let momentum = AdaptiveMomentumState::new(time as usize, moment("exp_avg")?, moment("exp_avg_sq")?);
            self.moments.insert(name.clone(), AdamWState { momentum });
        }
        match tensors.into_keys().next() {
            Some(name) => Err(malformed(format!("`{name}` belongs to no parameter"))),
            None => Ok(()),
        }
    }
}
