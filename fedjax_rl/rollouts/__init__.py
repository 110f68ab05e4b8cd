"""Tasks stepped under policies: one engine for episodes, trajectories and vectorised environments.

`environments` are stepped together, `engine` says what a step is and `loops` how often it is made.
What is made of the steps is in the other modules: returns and trajectories of whole episodes
(`episodes`), what is noted of episodes on the tables of a grid world (`grids`), batches of fixed
length from environments that begin anew by themselves (`vectorised`). Returns and advantages are
equations of `learners`.
"""
