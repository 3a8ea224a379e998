----------------------------- MODULE LowMarks -----------------------------
\* Collectors in front of the log (flows.collector, connectors.spool), and the watermark behind it (flows.intake).
\*
\* A collector stamps each call with its clock, answers when the call is safe, and hands it to the log, at once or from
\* its spool, any time later and after any number of crashes. Each message carries the collector's low mark: the least
\* stamp of all that the log has not acknowledged. The flow's watermark follows the greatest stamp that it has read, but
\* passes no low mark of a collector that it knows. One partition; no lateness is allowed, so that the claim is sharp.
EXTENDS Naturals, Sequences, FiniteSets
CONSTANTS C, T, M,     \* collectors, ticks of the clock, messages that the log may hold
          MARKS,       \* messages carry low marks, and the watermark obeys them
          RESTING,     \* the low mark counts what rests in the spool
          PERHAPS,     \* and what was handed over without an answer yet
          FIRST        \* a new collector answers nothing until a mark of its own stands in the log
VARIABLES now, known, rest, way, log, read, low, top, late
vars == <<now, known, rest, way, log, read, low, top, late>>

Cs == 1..C
None == T + 1
Min(set) == IF set = {} THEN None ELSE CHOOSE m \in set : \A x \in set : m <= x
Max(a, b) == IF a > b THEN a ELSE b

\* rest: stamps on the spool. way: handed over, unanswered.
Init == /\ now = 1 /\ known = {} /\ rest = [c \in Cs |-> {}] /\ way = [c \in Cs |-> {}]
        /\ log = <<>> /\ read = 0 /\ low = [c \in Cs |-> 0] /\ top = 0 /\ late = FALSE

Low(c) == LET unanswered == (IF RESTING THEN rest[c] ELSE {}) \cup (IF PERHAPS THEN way[c] ELSE {})
          IN Min(unanswered \cup {now})
Room == Len(log) < M
Pass == now < T /\ now' = now + 1 /\ UNCHANGED <<known, rest, way, log, read, low, top, late>>
\* The mark of a collector that has nothing to send: it is in the log before the collector goes on.
Mark(c) == /\ MARKS /\ Room /\ (c \notin known \/ \A i \in 1..Len(log) : log[i].c # c \/ log[i].low < Low(c))
           /\ log' = Append(log, [c |-> c, at |-> 0, low |-> Low(c)]) /\ known' = known \cup {c}
           /\ UNCHANGED <<now, rest, way, read, low, top, late>>
Call(c) == /\ (FIRST /\ MARKS => c \in known)
           /\ now \notin rest[c] \cup way[c]
           /\ rest' = [rest EXCEPT ![c] = @ \cup {now}]
           /\ UNCHANGED <<now, known, way, log, read, low, top, late>>
Hand(c) == \E r \in rest[c] : /\ rest' = [rest EXCEPT ![c] = @ \ {r}] /\ way' = [way EXCEPT ![c] = @ \cup {r}]
                              /\ UNCHANGED <<now, known, log, read, low, top, late>>
\* The log takes a message; its answer comes, or is lost with the collector, who finds it on its spool again.
Stored(c) == \E r \in way[c] :
               /\ Room
               /\ log' = Append(log, [c |-> c, at |-> r, low |-> Min({Low(c), r})])
               /\ \/ way' = [way EXCEPT ![c] = @ \ {r}] /\ UNCHANGED rest
                  \/ way' = [way EXCEPT ![c] = @ \ {r}] /\ rest' = [rest EXCEPT ![c] = @ \cup {r}]
               /\ UNCHANGED <<now, known, read, low, top, late>>
Crash(c) == /\ way[c] # {} /\ rest' = [rest EXCEPT ![c] = @ \cup way[c]] /\ way' = [way EXCEPT ![c] = {}]
            /\ UNCHANGED <<now, known, log, read, low, top, late>>

\* The flow: of each collector the greatest low mark; a repeat of what the log has already is no loss if it is late.
Watermark == LET holds == IF MARKS THEN {low[c] : c \in {x \in Cs : low[x] > 0}} ELSE {} IN Min({top} \cup holds)
Read == /\ read < Len(log) /\ read' = read + 1
        /\ LET m == log[read + 1]
               before == \E i \in 1..read : log[i].c = m.c /\ log[i].at = m.at
           IN /\ low' = [low EXCEPT ![m.c] = IF MARKS THEN Max(@, m.low) ELSE @] /\ top' = Max(top, m.at)
              /\ late' = (late \/ (m.at > 0 /\ ~before /\ m.at < Watermark))
        /\ UNCHANGED <<now, known, rest, way, log>>
Next == Pass \/ Read \/ \E c \in Cs : Mark(c) \/ Call(c) \/ Hand(c) \/ Stored(c) \/ Crash(c)
Spec == Init /\ [][Next]_vars

NothingIsLate == ~late
=============================================================================
