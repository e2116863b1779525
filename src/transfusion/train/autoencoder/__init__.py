"""The training of autoencoders: settings, pictures, state and a short loop of its own, on the files of the other runs.

picture ──keyed crop, flip──▶ batch ──▶ network (a keyed draw of the posterior, or codes) ──▶ reconstruction
  losses of the network ──▶ backward ──▶ clip ─┐
  losses of the discriminator, from its step ──┴▶ both step ──▶ average ──▶ dead codes revived ──▶ report
"""
