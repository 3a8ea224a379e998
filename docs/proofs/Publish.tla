------------------------------ MODULE Publish ------------------------------
\* The writer of rows (flows.publish over connectors.redis): executions that overlap, a Redis that loses its data.
\*
\* A log of N messages, message i for row i % R. An execution starts from the last snapshot, takes a fence, claims the
\* positions, and flushes: positions first, then its rows in any order. Executions before the newest may be dead,
\* asleep, or have writes on their way: they go on. Redis may lose everything, or come back as an older copy of itself.
\* Each rule of the code is a constant: FALSE leaves it out, and TLC then shows what it is for.
EXTENDS Naturals, FiniteSets
CONSTANTS N, R, E, L,   \* messages, rows, executions, losses
          CLAIM,        \* an execution claims the positions before it reads them
          WAITS,        \* it shows nothing until it has read as far as the last flush
          PERROW,       \* a row is written only over an older (fence, position)
          POSFIRST,     \* positions before rows, and who is superseded there stops
          COVER,        \* a row is written only where its execution's positions are there
          FILE,         \* the fence outlives Redis in a file
          MARK,         \* a mark, moved on by every pipeline, shows a loss
          REFILL,       \* after a loss every row is written again
          GIVEALL       \* a start gives out all rows
VARIABLES n, st, f, p, tgt, fl, done, todo, my, saved, file, lost, redis, copy
vars == <<n, st, f, p, tgt, fl, done, todo, my, saved, file, lost, redis, copy>>
here == <<n, f, p, tgt, saved, file, lost, copy>>

Execs == 1..E
Rows == 0..(R - 1)
Count(r, to) == Cardinality({i \in 1..to : i % R = r})
Empty == [counter |-> 0, posAt |-> 0, posF |-> 0, rowAt |-> [r \in Rows |-> 0], rowF |-> [r \in Rows |-> 0],
          mark |-> <<0, 0>>]
Max(a, b) == IF a > b THEN a ELSE b

Init == /\ n = 0 /\ st = [e \in Execs |-> "off"] /\ f = [e \in Execs |-> 0] /\ p = [e \in Execs |-> 0]
        /\ tgt = [e \in Execs |-> 0] /\ fl = [e \in Execs |-> 0] /\ done = [e \in Execs |-> 0]
        /\ todo = [e \in Execs |-> {}] /\ my = [e \in Execs |-> 0]
        /\ saved = 0 /\ file = 0 /\ lost = 0 /\ redis = Empty /\ copy = Empty

\* The greater of INCR and one more than the file's is the fence; the file is durable before the fence is used.
Start(e) == LET fence == Max(redis.counter, IF FILE THEN file ELSE 0) + 1 IN
            /\ e = n + 1 /\ n' = e
            /\ st' = [st EXCEPT ![e] = "boot"] /\ p' = [p EXCEPT ![e] = saved]
            /\ done' = [done EXCEPT ![e] = IF GIVEALL THEN 0 ELSE saved]
            /\ f' = [f EXCEPT ![e] = fence] /\ file' = fence /\ redis' = [redis EXCEPT !.counter = fence]
            /\ UNCHANGED <<tgt, fl, todo, my, saved, lost, copy>>
Claim(e) == /\ st[e] = "boot"
            /\ IF CLAIM /\ redis.posF > f[e]
               THEN st' = [st EXCEPT ![e] = "dead"] /\ UNCHANGED <<tgt, redis>>
               ELSE /\ st' = [st EXCEPT ![e] = "run"] /\ tgt' = [tgt EXCEPT ![e] = redis.posAt]
                    /\ redis' = [redis EXCEPT !.posF = IF CLAIM THEN f[e] ELSE @, !.mark = <<f[e], 0>>]
            /\ UNCHANGED <<n, f, p, fl, done, todo, my, saved, file, lost, copy>>
\* The publisher has a thread of its own: the log is read on while a flush is written.
Read(e) == /\ st[e] \in {"run", "mid", "emptied"} /\ p[e] < N /\ p' = [p EXCEPT ![e] = @ + 1]
           /\ UNCHANGED <<n, st, f, tgt, fl, done, todo, my, saved, file, lost, redis, copy>>
\* The lock on the recovery directory: the newest alone saves.
Save(e) == /\ st[e] \in {"run", "mid", "emptied"} /\ e = n /\ saved < p[e] /\ saved' = p[e]
           /\ UNCHANGED <<n, st, f, p, tgt, fl, done, todo, my, file, lost, redis, copy>>

Own(e) == redis.mark = <<f[e], my[e]>>
\* Positions are written over one's own alone, since a claim.
Over(e) == COVER => redis.posF = f[e]
Changed(e, k) == {r \in Rows : Count(r, k) > Count(r, done[e])}
\* The pipeline of the positions: what it writes, then a step of the mark. The cut k that is written may be behind
\* what has been read since it was handed over.
Flush(e, k) ==
            /\ st[e] = "run" /\ (WAITS => k >= tgt[e]) /\ (Changed(e, k) # {} \/ (MARK /\ ~Own(e)))
            /\ fl' = [fl EXCEPT ![e] = k] /\ todo' = [todo EXCEPT ![e] = Changed(e, k)]
            /\ IF POSFIRST /\ redis.posF > f[e]
               THEN st' = [st EXCEPT ![e] = "dead"] /\ UNCHANGED <<redis, my>>
               ELSE LET passed == Own(e) \/ ~MARK IN
                    /\ st' = [st EXCEPT ![e] = IF passed THEN "mid" ELSE "emptied"]
                    /\ redis' = [redis EXCEPT !.posAt = IF POSFIRST /\ Over(e) THEN k ELSE @,
                                              !.posF = IF POSFIRST /\ Over(e) THEN f[e] ELSE @,
                                              !.mark = IF Own(e) THEN <<f[e], my[e] + 1>> ELSE @]
                    /\ my' = [my EXCEPT ![e] = IF Own(e) THEN @ + 1 ELSE @]
            /\ UNCHANGED <<done>> /\ UNCHANGED here
Newer(e, r) == \/ f[e] > redis.rowF[r]
               \/ f[e] = redis.rowF[r] /\ fl[e] > redis.rowAt[r]
Row(e, r) == /\ st[e] = "mid" /\ r \in todo[e] /\ todo' = [todo EXCEPT ![e] = @ \ {r}]
             /\ redis' = IF (COVER => redis.posF = f[e] /\ redis.posAt = fl[e]) /\ (PERROW => Newer(e, r))
                         THEN [redis EXCEPT !.rowAt[r] = fl[e], !.rowF[r] = f[e]] ELSE redis
             /\ UNCHANGED <<st, fl, done, my>> /\ UNCHANGED here
\* The step of the mark that ends the rows' pipelines.
Finish(e) == /\ st[e] = "mid" /\ todo[e] = {}
             /\ LET passed == Own(e) \/ ~MARK IN
                /\ st' = [st EXCEPT ![e] = IF passed THEN "run" ELSE "emptied"]
                /\ done' = [done EXCEPT ![e] = IF passed THEN fl[e] ELSE @]
             /\ my' = [my EXCEPT ![e] = IF Own(e) THEN @ + 1 ELSE @]
             /\ redis' = [redis EXCEPT !.mark = IF Own(e) THEN <<f[e], my[e] + 1>> ELSE @,
                          !.posAt = IF ~POSFIRST /\ f[e] >= redis.posF THEN fl[e] ELSE @,
                          !.posF = IF POSFIRST THEN @ ELSE Max(@, f[e])]
             /\ UNCHANGED <<fl, todo>> /\ UNCHANGED here
\* What it finds is an older execution's that is not dead yet, or its own of an older copy.
Again(e) == /\ st[e] = "emptied"
            /\ IF CLAIM /\ redis.posF > f[e]
               THEN st' = [st EXCEPT ![e] = "dead"] /\ UNCHANGED <<tgt, done, redis>>
               ELSE /\ st' = [st EXCEPT ![e] = "run"] /\ tgt' = [tgt EXCEPT ![e] = redis.posAt]
                    /\ redis' = [redis EXCEPT !.counter = Max(@, f[e]), !.mark = <<f[e], my[e]>>,
                                              !.posF = IF CLAIM THEN f[e] ELSE @]
                    /\ done' = [done EXCEPT ![e] = IF REFILL THEN 0 ELSE @]
            /\ UNCHANGED <<n, f, p, fl, todo, my, saved, file, lost, copy>>
\* The claim is made, and its answer is lost: it is claimed again before anything is written.
Unheard(e) == /\ st[e] = "emptied" /\ CLAIM /\ redis.posF < f[e]
              /\ redis' = [redis EXCEPT !.counter = Max(@, f[e]), !.posF = f[e]]
              /\ UNCHANGED <<n, st, f, p, tgt, fl, done, todo, my, saved, file, lost, copy>>

\* What Redis loses: everything, under open connections (FLUSHALL) or not; or what it was told since an older copy (a
\* replica, a file), which breaks connections: what is on its way has no answer and is tried again.
Copy == /\ lost < L /\ copy # redis /\ copy' = redis
        /\ UNCHANGED <<n, st, f, p, tgt, fl, done, todo, my, saved, file, lost, redis>>
Lose == /\ lost < L /\ lost' = lost + 1
        /\ \/ redis' = Empty /\ UNCHANGED st
           \/ redis' = copy /\ st' = [e \in Execs |-> IF st[e] = "mid" THEN "run" ELSE st[e]]
        /\ UNCHANGED <<n, f, p, tgt, fl, done, todo, my, saved, file, copy>>

Next == \/ \E e \in Execs : \/ Start(e) \/ Claim(e) \/ Read(e) \/ Save(e) \/ Finish(e) \/ Again(e) \/ Unheard(e)
                            \/ \E r \in Rows : Row(e, r)
                            \/ \E k \in fl[e]..p[e] : Flush(e, k)
        \/ Copy \/ Lose
Spec == Init /\ [][Next]_vars

\* What readers were promised: but for the loss itself.
NeverBackwards == [][lost' = lost => \A r \in Rows : Count(r, redis'.rowAt[r]) >= Count(r, redis.rowAt[r])]_vars
\* A flush of the newest execution that ends well has put all of its numbers where readers are, whatever was lost before
\* it or within it.
Whole == [][\A e \in Execs : e = n /\ st[e] = "mid" /\ st'[e] = "run" /\ lost' = lost
              => \A r \in Rows : Count(r, redis'.rowAt[r]) >= Count(r, fl[e])]_vars
\* Each execution's fence is above all before it.
Above == \A e \in 2..n : f[e] > f[e - 1]
=============================================================================
