//! What training changes of the layers that read documents: an adapter beside them, or all their weights.

use std::fmt;

use lloco_lora::LoraConfig;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::{Error, Reader, Result};

/// What training changes of the layers that read documents.
///
/// In JSON a [`LoraConfig`], or the word `"full"`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Tuning {
    /// An adapter of this shape.
    Lora(LoraConfig),
    /// The weights of all linear projections of the layers that read. What is trained and stored is their difference
    /// from the model's own, so weight decay draws them back to the model.
    Full,
}

const FULL: &str = "full";

impl Tuning {
    /// Checks it beside who reads summaries.
    pub(crate) fn check(&self, reader: &Reader) -> Result<()> {
        match (self, reader) {
            (Self::Full, Reader::Shared) => {
                let expected = "`base` or `own` where the encoder is trained in full: only an adapter can read as well";
                Err(Error::InvalidSetting { field: "reader", found: "shared".into(), expected: expected.into() })
            }
            _ => Ok(()),
        }
    }
}

impl From<LoraConfig> for Tuning {
    fn from(config: LoraConfig) -> Self {
        Self::Lora(config)
    }
}

impl Serialize for Tuning {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Lora(config) => config.serialize(serializer),
            Self::Full => serializer.serialize_str(FULL),
        }
    }
}

impl<'de> Deserialize<'de> for Tuning {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Tuning;

            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("the shape of an adapter, or \"full\"")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Tuning, E> {
                match word {
                    FULL => Ok(Tuning::Full),
                    other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Tuning, A::Error> {
                LoraConfig::deserialize(MapAccessDeserializer::new(map)).map(Tuning::Lora)
            }
        }
        deserializer.deserialize_any(Either)
    }
}
