------------------------------- MODULE Align -------------------------------
\* A step behind several senders (flows.engine.aligner) on an engine whose snapshots fall between ticks.
\*
\* Senders send items and numbered ticks, in order. The step lets a sender's items in up to its latest tick, holds the
\* rest, and makes a cut when every sender has a tick of that number or a later one. The engine saves all at once, when
\* no message is on its way, and a crash brings everything back to the last save: items are sent again from there, but
\* the ticks between them fall elsewhere, since they go by time.
EXTENDS Naturals, Sequences
CONSTANTS S, N, T,    \* senders, items of each, ticks of the clock
          HOLD,       \* what comes behind a tick is held until the cut
          SAVEHELD,   \* a save has what is held
          HEAR        \* a sender that resumes begins above the ticks that are saved
VARIABLES clock, sent, last, way, at, covered, released, held, inside, save, broken
vars == <<clock, sent, last, way, at, covered, released, held, inside, save, broken>>

Senders == 1..S
Zero == [s \in Senders |-> 0]
Init == /\ clock = 1 /\ sent = Zero /\ last = Zero /\ way = [s \in Senders |-> <<>>]
        /\ at = Zero /\ covered = Zero /\ released = 0 /\ held = [s \in Senders |-> <<>>] /\ inside = Zero
        /\ save = [sent |-> Zero, last |-> Zero, at |-> Zero, covered |-> Zero, released |-> 0,
                   held |-> [s \in Senders |-> <<>>], inside |-> Zero, clock |-> 1]
        /\ broken = FALSE

\* A message is an item, <<>>, or a tick with the items that it covers: [tick, covers].
Pass == clock < T /\ clock' = clock + 1 /\ UNCHANGED <<sent, last, way, at, covered, released, held, inside, save, broken>>
Send(s) == /\ sent[s] < N /\ sent' = [sent EXCEPT ![s] = @ + 1]
           /\ way' = [way EXCEPT ![s] = Append(@, [tick |-> 0, covers |-> 0])]
           /\ UNCHANGED <<clock, last, at, covered, released, held, inside, save, broken>>
Tick(s) == /\ last[s] < clock /\ last' = [last EXCEPT ![s] = clock]
           /\ way' = [way EXCEPT ![s] = Append(@, [tick |-> clock, covers |-> sent[s]])]
           /\ UNCHANGED <<clock, sent, at, covered, released, held, inside, save, broken>>

\* Let messages of the queues in, as far as each sender's tick allows; a queue at a time.
Take(st, s, m) == IF m.tick = 0 THEN [st EXCEPT !.inside[s] = @ + 1]
                  ELSE [st EXCEPT !.at[s] = m.tick, !.covered[s] = m.covers]
Blocked(st, s) == st.at[s] > st.released
RECURSIVE Drain(_, _)
Drain(st, s) == IF st.held[s] = <<>> \/ Blocked(st, s) THEN st
                ELSE Drain(Take([st EXCEPT !.held[s] = Tail(@)], s, Head(st.held[s])), s)
RECURSIVE DrainAll(_, _)
DrainAll(st, s) == IF s > S THEN st ELSE DrainAll(Drain(st, s), s + 1)
Least(of) == CHOOSE m \in {of[s] : s \in Senders} : \A s \in Senders : of[s] >= m
\* A cut is right if it has of every sender exactly what the sender's tick covers.
RECURSIVE Cuts(_)
Cuts(st) == IF Least(st.at) <= st.released THEN st
            ELSE LET cut == [st EXCEPT !.released = Least(st.at),
                                       !.broken = @ \/ \E s \in Senders : st.inside[s] # st.covered[s]]
                 IN Cuts(DrainAll(cut, 1))
State == [at |-> at, covered |-> covered, released |-> released, held |-> held, inside |-> inside, broken |-> broken]
Receive(s) == /\ way[s] # <<>> /\ way' = [way EXCEPT ![s] = Tail(@)]
              /\ LET m == Head(way[s])
                     st == IF HOLD /\ (held[s] # <<>> \/ Blocked(State, s)) THEN [State EXCEPT !.held[s] = Append(@, m)]
                           ELSE Take(State, s, m)
                     new == IF m.tick = 0 THEN st ELSE Cuts(st)
                 IN /\ at' = new.at /\ covered' = new.covered /\ released' = new.released /\ held' = new.held
                    /\ inside' = new.inside
                    \* A tick that is not above the last cut would never make another.
                    /\ broken' = (new.broken \/ (m.tick # 0 /\ m.tick <= at[s]))
              /\ UNCHANGED <<clock, sent, last, save>>

Quiet == \A s \in Senders : way[s] = <<>>
Save == /\ Quiet
        /\ save' = [sent |-> sent, last |-> last, at |-> at, covered |-> covered, released |-> released,
                    held |-> IF SAVEHELD THEN held ELSE [s \in Senders |-> <<>>], inside |-> inside, clock |-> clock]
        /\ save' # save
        /\ UNCHANGED <<clock, sent, last, way, at, covered, released, held, inside, broken>>
\* The clock may have been set back meanwhile: what was saved is heard, and raises it.
Crash == /\ \E back \in {clock, 1} : clock' = IF HEAR /\ back < save.clock + 1 /\ save.clock < T THEN save.clock + 1 ELSE back
         /\ sent' = save.sent /\ last' = IF HEAR THEN save.last ELSE Zero
         /\ at' = save.at /\ covered' = save.covered /\ released' = save.released
         /\ held' = save.held /\ inside' = save.inside /\ way' = [s \in Senders |-> <<>>]
         /\ UNCHANGED <<save, broken>>
Next == Pass \/ Save \/ Crash \/ \E s \in Senders : Send(s) \/ Tick(s) \/ Receive(s)
Spec == Init /\ [][Next]_vars

ExactPrefixes == ~broken
=============================================================================
