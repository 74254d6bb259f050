"""Models of the zoo that are written by hand: message passing on graphs, experts, states, attention of other kinds."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES, BATCH, TOKENS, WIDTH, HEADS, NODES, EDGES = 10, 4, 8, 24, 3, 12, 40
Case = tuple[nn.Module, tuple[Tensor, ...], Tensor]


class Messages(nn.Module):
    """Message passing along edges (source, target); `kind` says how a node's messages are made and gathered."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.own, self.neighbours = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        if kind == "gat":
            self.source, self.target = (nn.Parameter(torch.randn(HEADS, WIDTH // HEADS)) for _ in range(2))
        if kind == "edge":
            self.message = nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
        if kind == "gin":
            self.eps = nn.Parameter(torch.zeros(()))
            self.update = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.ReLU())
        if kind == "gated":
            self.cell = nn.GRUCell(WIDTH, WIDTH)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        """New states of the nodes (nodes, width)."""
        source, target = edges[0], edges[1]

        def gather(values: Tensor) -> Tensor:
            return torch.zeros(len(x), *values.shape[1:], dtype=x.dtype).index_add(0, target, values)

        degree = gather(torch.ones(edges.shape[1], 1, dtype=x.dtype)).clamp(min=1)
        if self.kind == "gcn":
            root = degree.rsqrt()
            return self.own(x) + gather(self.neighbours(x)[source] * root[source] * root[target])
        if self.kind == "sage":
            return F.normalize(self.own(x) + self.neighbours(gather(x[source]) / degree), dim=-1)
        if self.kind == "gat":
            heads = self.neighbours(x).unflatten(-1, (HEADS, -1))
            score = F.leaky_relu((heads * self.source).sum(-1)[source] + (heads * self.target).sum(-1)[target], 0.2)
            weight = (score - score.max().detach()).exp()
            return self.own(x) + gather(heads[source] * weight[..., None]).flatten(1) / gather(
                weight
            ).repeat_interleave(WIDTH // HEADS, 1)
        if self.kind == "edge":
            return self.own(x) + gather(self.message(torch.cat([x[source], x[target]], -1)))
        if self.kind == "gin":
            return self.update((1 + self.eps) * x + gather(x[source]))
        if self.kind == "gated":
            return self.cell(gather(self.neighbours(x)[source]), x)
        return self.own(x) + torch.zeros_like(x).index_reduce(0, target, self.neighbours(x)[source], "amax")


class Graph(nn.Module):
    """Two rounds of message passing and a classifier of every node."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.embed, self.first, self.second = nn.Linear(5, WIDTH), Messages(kind), Messages(kind)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        """Logits of the nodes."""
        return self.head(F.relu(self.second(F.relu(self.first(self.embed(x), edges)), edges)))


class Attention(nn.Module):
    """Self-attention on tokens (batch, tokens, width) whose `kind` says how queries meet keys."""

    distance: Tensor
    decay: Tensor
    causal: Tensor

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, size = kind, WIDTH // HEADS
        self.query, self.key, self.value, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        if "temperature" in kind:
            self.temperature = nn.Parameter(torch.ones(HEADS, 1, 1))
        if kind == "relative_bias":
            self.bias = nn.Parameter(torch.randn(HEADS, 2 * TOKENS - 1) * 0.1)
        elif "relative" in kind:
            self.relative = nn.Parameter(torch.randn(2 * TOKENS - 1, size) * 0.1)
        place = torch.arange(TOKENS)
        self.register_buffer("distance", place[:, None] - place + TOKENS - 1, persistent=False)
        self.register_buffer("decay", 0.9 ** (place[:, None] - place).clamp(min=0).float().tril(), persistent=False)
        self.register_buffer("causal", torch.ones(TOKENS, TOKENS).tril(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Mixed tokens."""
        q, k, v = (f(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        if self.kind == "linear":
            q, k = F.elu(q) + 1, F.elu(k) + 1
            mixed = q @ (k.transpose(-2, -1) @ v) / (q @ k.sum(-2)[..., None])
        elif self.kind == "relu_linear":
            q, k = F.relu(q), F.relu(k)
            mixed = q @ (k.transpose(-2, -1) @ v) / (q @ k.sum(-2)[..., None] + 1e-6)
        elif self.kind == "retention":
            mixed = (q @ k.transpose(-2, -1) * self.decay * self.causal) @ v
        else:
            mixed = F.softmax(self.scores(q, k), -1) @ v
        return self.out(mixed.transpose(1, 2).flatten(2))

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """Logits of the softmax over keys."""
        if self.kind == "temperature":
            return F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * self.temperature
        if self.kind == "clamped_temperature":
            cosine = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
            return cosine * self.temperature.clamp(max=4.6).exp()
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        if self.kind == "softcap":
            return 5 * torch.tanh(scores / 5)
        if self.kind == "relative_query":
            return scores + torch.einsum("bhqc,qkc->bhqk", q, self.relative[self.distance])
        if self.kind == "relative_key":
            return scores + torch.einsum("bhkc,qkc->bhqk", k, self.relative[self.distance])
        if self.kind == "relative_bias":
            return scores + self.bias[:, self.distance]
        return -torch.cdist(q, k)


class Experts(nn.Module):
    """A router's softmax over experts; `kind`: dense (all of them), top (the best two), shared (and one for all)."""

    def __init__(self, kind: str, experts: int = 4) -> None:
        super().__init__()
        self.kind = kind
        self.router = nn.Linear(WIDTH, experts, bias=False)
        self.up = nn.Parameter(torch.randn(experts, WIDTH, 2 * WIDTH) * WIDTH**-0.5)
        self.down = nn.Parameter(torch.randn(experts, 2 * WIDTH, WIDTH) * WIDTH**-0.5)
        if kind == "shared":
            self.common = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """Sum of the experts' outputs with their weights."""
        weight = F.softmax(self.router(x), -1)
        if self.kind != "dense":
            best, index = weight.topk(2, -1)
            weight = torch.zeros_like(weight).scatter(-1, index, best / best.sum(-1, keepdim=True))
        hidden = F.relu(torch.einsum("btc,ecd->bted", x, self.up))
        out = torch.einsum("bted,edc,bte->btc", hidden, self.down, weight)
        return out + self.common(x) if self.kind == "shared" else out


class States(nn.Module):
    """Linear recurrence of states (batch, width, states); `kind`: s4d (fixed) or mamba (chosen by the input)."""

    def __init__(self, kind: str, states: int = 4) -> None:
        super().__init__()
        self.kind, self.states = kind, states
        self.enter, self.gate, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.conv = nn.Conv1d(WIDTH, WIDTH, 3, padding=2, groups=WIDTH)
        self.log_a = nn.Parameter(torch.arange(1.0, states + 1).log().repeat(WIDTH, 1))
        if kind == "mamba":
            self.step, self.select = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * states, bias=False)
        else:
            self.log_step = nn.Parameter(torch.rand(WIDTH) - 2)
            self.b, self.c = (nn.Parameter(torch.randn(WIDTH, states)) for _ in range(2))
        self.skip = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of the recurrence, gated."""
        u = F.silu(self.conv(self.enter(x).transpose(1, 2))[..., :TOKENS].transpose(1, 2))
        if self.kind == "mamba":
            step = F.softplus(self.step(u))
            b, c = self.select(u)[:, :, None].chunk(2, -1)
        else:
            step = self.log_step.exp().expand_as(u)
            b, c = self.b.expand(*u.shape, -1), self.c.expand(*u.shape, -1)
        decay = torch.exp(-step[..., None] * self.log_a.exp())
        driven = (step * u)[..., None] * b
        state, outputs = torch.zeros_like(driven[:, 0]), []
        for t in range(TOKENS):
            state = decay[:, t] * state + driven[:, t]
            outputs.append((state * c[:, t]).sum(-1))
        return self.out((torch.stack(outputs, 1) + self.skip * u) * F.silu(self.gate(x)))


class Blocks(nn.Module):
    """Two pre-norm residual blocks of a mixer and an MLP, on embedded tokens; logits of their mean, perhaps capped."""

    def __init__(self, mixers: list[nn.Module], capped: bool) -> None:
        super().__init__()
        self.embed, self.place = nn.Linear(5, WIDTH), nn.Parameter(torch.randn(TOKENS, WIDTH) * 0.1)
        self.mixers = nn.ModuleList(mixers)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2 * len(mixers)))
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.ReLU(), nn.Linear(2 * WIDTH, WIDTH)) for _ in mixers
        )
        self.head, self.capped = nn.Linear(WIDTH, CLASSES), capped

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, classes)."""
        x = self.embed(x) + self.place
        for i, (mix, mlp) in enumerate(zip(self.mixers, self.mlps, strict=True)):
            x = x + mix(self.norms[2 * i](x))
            x = x + mlp(self.norms[2 * i + 1](x))
        logits = self.head(x.mean(1))
        return 3 * torch.tanh(logits / 3) if self.capped else logits


GRAPHS = ("gcn", "sage", "gat", "gin", "edge", "gated", "max")
ATTENTIONS = (
    "linear", "relu_linear", "retention", "temperature", "clamped_temperature", "softcap", "relative_query",
    "relative_key", "relative_bias", "distance",
)  # fmt: skip
EXPERTS, STATES = ("dense", "top", "shared"), ("s4d", "mamba")
NAMES = (
    *(f"graph_{k}" for k in GRAPHS), *(f"attention_{k}" for k in ATTENTIONS), *(f"experts_{k}" for k in EXPERTS),
    *(f"states_{k}" for k in STATES),
)  # fmt: skip


def case(name: str) -> Case:
    """Model, inputs and labels of one of `NAMES`."""
    family, _, kind = name.partition("_")
    if family == "graph":
        edges = torch.cat([torch.randint(NODES, (2, EDGES)), torch.arange(NODES).repeat(2, 1)], 1)  # and every loop
        return Graph(kind), (torch.randn(NODES, 5), edges), torch.randint(CLASSES, (NODES,))
    mixer = {"attention": Attention, "experts": Experts, "states": States}[family]
    model = Blocks([mixer(kind), mixer(kind)], capped=kind == "softcap")
    return model, (torch.randn(BATCH, TOKENS, 5),), torch.randint(CLASSES, (BATCH,))
