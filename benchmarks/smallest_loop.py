"""The smallest example: a policy gradient in the style of CleanRL, against Gymnasium alone.

Nothing of ours is imported; `gym.make_vec` finds the environment. An action is a token and the
log-probability that it was drawn with, so the mean return is J = E[score] − β·KL(π‖π_ref). A network that
knows nothing begins near 1, the reference has 2.65, the best policy 3.51; `python -m benchmarks.smallest_loop`.
"""

from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, one_hot

ENVS, STEPS, ITERATIONS, LEARNING_RATE = 128, 5, 200, 3e-3

torch.manual_seed(0)
envs: Any = gym.make_vec(
    "textenv:textenv/Exact-v0",
    num_envs=ENVS,
    vectorization_mode="vector_entry_point",
    kl="full",
    autoreset_mode=gym.vector.AutoresetMode.SAME_STEP,
)
columns, tokens = envs.single_observation_space["input_ids"].shape[0], int(envs.single_action_space["token"].n)
actor, critic = (nn.Sequential(nn.Linear(columns * tokens, 128), nn.ReLU(), nn.Linear(128, n)) for n in (tokens, 1))
optimizer = torch.optim.Adam([*actor.parameters(), *critic.parameters()], lr=LEARNING_RATE)


def encode(observation: dict[str, Any]) -> Tensor:
    """One-hot tokens, and zeros where there are none yet."""
    ids, mask = torch.tensor(observation["input_ids"]), torch.tensor(observation["attention_mask"])
    return (one_hot(ids, tokens) * mask[:, :, None]).flatten(1).float()


state = encode(envs.reset(seed=0)[0])
for iteration in range(1, ITERATIONS + 1):
    logprobs, values, rewards, running = [], [], [], []
    for _ in range(STEPS):
        policy = torch.distributions.Categorical(logits=actor(state))
        token = policy.sample()
        logprobs.append(policy.log_prob(token))
        values.append(critic(state)[:, 0])
        choice = {"token": token.numpy(), "logprob": logprobs[-1].detach().numpy()}
        observation, reward, terminated, _, _ = envs.step(choice)
        rewards.append(torch.tensor(reward).float())
        running.append(torch.tensor(~terminated))
        state = encode(observation)
    returns = [critic(state)[:, 0].detach()]
    for reward, goes_on in zip(reversed(rewards), reversed(running), strict=True):
        returns.insert(0, reward + returns[0] * goes_on)
    value, target = torch.stack(values), torch.stack(returns[:-1])
    loss = mse_loss(value, target) - ((target - value).detach() * torch.stack(logprobs)).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if iteration % 20 == 0:
        print(f"iteration {iteration:3d}  mean return {torch.stack(rewards).sum() / (~torch.stack(running)).sum():.2f}")
