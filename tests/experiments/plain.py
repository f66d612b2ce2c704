"""Policy gradient with the reward itself as the advantage, as a plug-in."""


def advantage(trajectory, **args):
  del args
  return trajectory.rewards_BT


def loss(policy, trajectory, advantage_BT, **args):
  del args
  total = (trajectory.mask_BT * advantage_BT * policy.logprobs_BT).sum()
  return -total, trajectory.mask_BT.sum(), {}
