//! Everything that one message sees and has done so far.

use super::Mode;
use crate::{
    CallContextView, Callback, DataCertificate, EntryPoint, EnvironmentReads, LogRecord, OutgoingCall, ResponseView,
    SystemChanges, SystemView,
};
use replicore_types::fees::{FreezingThreshold, WasmWidth};
use replicore_types::{
    CallbackId, CanisterId, CoarseTime, Cycles, NumBytes, Payload, PrincipalId, RejectContext, Time, WasmResult,
};
use std::collections::BTreeMap;
use std::mem::take;
use std::sync::Arc;

/// Whether the call context is answered.
#[derive(Clone, Debug)]
pub(crate) enum Response {
    /// Not yet.
    Open,
    /// By an earlier message.
    Earlier,
    /// By this one.
    Given(WasmResult),
}

/// A call between `call_new` and `call_perform`.
#[derive(Clone, Debug)]
pub(crate) struct CallInPreparation {
    pub(crate) callee: PrincipalId,
    pub(crate) method_name: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) cycles: Cycles,
    pub(crate) on_reply: crate::WasmClosure,
    pub(crate) on_reject: crate::WasmClosure,
    pub(crate) on_cleanup: Option<crate::WasmClosure>,
    pub(crate) timeout_seconds: Option<u32>,
}

/// One message: what it sees and what it has done.
pub(crate) struct MessageState {
    pub(crate) entry_point: EntryPoint,
    pub(crate) mode: Mode,
    pub(crate) caller: PrincipalId,
    pub(crate) caller_info: Option<(Payload, PrincipalId)>,
    pub(crate) call_context: CallContextView,
    pub(crate) view: Arc<SystemView>,
    pub(crate) width: WasmWidth,

    pub(crate) reply_data: Vec<u8>,
    pub(crate) response: Response,
    pub(crate) call: Option<CallInPreparation>,
    pub(crate) calls: Vec<OutgoingCall>,
    /// Requests made in this message, by receiver.
    pub(crate) slots_used: BTreeMap<CanisterId, usize>,
    pub(crate) cycles_accepted: Cycles,
    /// Cycles taken for calls that were performed, and attached to the one in preparation.
    pub(crate) cycles_taken: Cycles,
    pub(crate) cycles_burned: Cycles,
    pub(crate) cycles_minted: Cycles,
    pub(crate) cycles_reserved: Cycles,
    pub(crate) memory_growth: NumBytes,
    pub(crate) message_memory_growth: NumBytes,
    pub(crate) certified_data: Option<Vec<u8>>,
    pub(crate) global_timer: Option<Option<Time>>,
    pub(crate) log: Vec<LogRecord>,
    /// Bytes of `log`, overhead included.
    pub(crate) log_bytes: usize,
    /// Records made, dropped ones included: what their indices count.
    pub(crate) log_records_made: u64,
    pub(crate) accepted_message: bool,
    pub(crate) low_wasm_memory: bool,
    pub(crate) reads: EnvironmentReads,
    /// The data certificate, once it was read.
    pub(crate) certificate: Option<Payload>,
}

impl MessageState {
    #[inline]
    pub(crate) fn new(call: crate::Call<'_>, width: WasmWidth) -> Self {
        let response = if call.call_context.responded {
            Response::Earlier
        } else {
            Response::Open
        };
        Self {
            mode: Mode::of(&call.entry_point),
            entry_point: call.entry_point,
            caller: call.caller,
            caller_info: call.caller_info,
            call_context: call.call_context,
            view: Arc::clone(call.view),
            width,
            reply_data: Vec::new(),
            response,
            call: None,
            calls: Vec::new(),
            slots_used: BTreeMap::new(),
            cycles_accepted: Cycles::ZERO,
            cycles_taken: Cycles::ZERO,
            cycles_burned: Cycles::ZERO,
            cycles_minted: Cycles::ZERO,
            cycles_reserved: Cycles::ZERO,
            memory_growth: NumBytes(0),
            message_memory_growth: NumBytes(0),
            certified_data: None,
            global_timer: None,
            log: Vec::new(),
            log_bytes: 0,
            log_records_made: 0,
            accepted_message: false,
            low_wasm_memory: false,
            reads: EnvironmentReads::default(),
            certificate: None,
        }
    }

    /// The message as it was before any of it was executed.
    pub(crate) fn again(self) -> Self {
        let call = crate::Call {
            entry_point: self.entry_point,
            caller: self.caller,
            caller_info: self.caller_info,
            call_context: self.call_context,
            message_id: None,
            view: &self.view,
        };
        Self::new(call, self.width)
    }

    /// The main balance as the canister sees it now.
    pub(crate) fn balance(&self) -> Cycles {
        self.view.balance + self.cycles_accepted + self.cycles_minted
            - self.cycles_taken
            - self.cycles_burned
            - self.cycles_reserved
    }

    /// Memory usage now, growth of this message included.
    pub(crate) fn memory_usage(&self) -> NumBytes {
        self.view.memory.memory_usage + self.memory_growth
    }

    /// What the canister must keep to live through its freezing threshold, were its memory usage `memory_usage`.
    pub(crate) fn freezing_threshold(&self, memory_usage: NumBytes) -> Cycles {
        self.freezing_threshold_with(memory_usage, NumBytes(0))
    }

    fn freezing_threshold_with(&self, memory_usage: NumBytes, more_message_memory: NumBytes) -> Cycles {
        self.view.subnet.freezing_threshold(FreezingThreshold {
            seconds: self.view.freezing_threshold_seconds,
            memory_allocation: self.view.memory.memory_allocation,
            memory_usage,
            message_memory_usage: self.view.memory.message_memory_usage
                + self.message_memory_growth
                + more_message_memory,
            compute_allocation_percent: self.view.compute_allocation_percent,
            reserved_balance: self.view.reserved_balance + self.cycles_reserved,
        })
    }

    /// What may be spent without freezing the canister.
    pub(crate) fn liquid_balance(&self) -> Cycles {
        self.liquid_balance_with(NumBytes(0))
    }

    /// [`Self::liquid_balance`] of a canister with so much message memory more.
    pub(crate) fn liquid_balance_with(&self, more_message_memory: NumBytes) -> Cycles {
        self.balance() - self.freezing_threshold_with(self.memory_usage(), more_message_memory)
    }

    /// The argument, or the reply of a callback.
    pub(crate) fn argument(&self) -> &[u8] {
        match &self.entry_point {
            EntryPoint::Init(argument)
            | EntryPoint::PostUpgrade(argument)
            | EntryPoint::Update { argument, .. }
            | EntryPoint::ReplicatedQuery { argument, .. }
            | EntryPoint::Query { argument, .. }
            | EntryPoint::CompositeQuery { argument, .. }
            | EntryPoint::InspectMessage { argument, .. }
            | EntryPoint::Callback {
                response: ResponseView::Reply(argument),
                ..
            } => argument.as_slice(),
            _ => &[],
        }
    }

    /// The response that a callback or cleanup got.
    pub(crate) fn callback_response(&self) -> Option<&ResponseView> {
        match &self.entry_point {
            EntryPoint::Callback { response, .. } | EntryPoint::Cleanup { response, .. } => Some(response),
            _ => None,
        }
    }

    /// The reject that a callback or cleanup got.
    pub(crate) fn reject(&self) -> Option<&RejectContext> {
        match self.callback_response() {
            Some(ResponseView::Reject(reject)) => Some(reject),
            _ => None,
        }
    }

    /// True where a data certificate can be read.
    pub(crate) fn has_data_certificate(&self) -> bool {
        self.certificate_source().is_some()
    }

    /// The certificate of a query, made now if it has not been read before.
    pub(crate) fn data_certificate(&mut self) -> Option<&Payload> {
        if self.certificate.is_none() {
            self.reads.certificate = true;
            let source = self.certificate_source()?;
            self.certificate = Some(source.0.data_certificate(self.view.canister_id));
        }
        self.certificate.as_ref()
    }

    fn certificate_source(&self) -> Option<&DataCertificate> {
        match &self.entry_point {
            EntryPoint::Query { data_certificate, .. } | EntryPoint::CompositeQuery { data_certificate, .. } => {
                data_certificate.as_ref()
            }
            _ => None,
        }
    }

    /// Largest reply: query methods may answer more than everything else, their callbacks included.
    pub(crate) fn reply_bytes_max(&self) -> usize {
        use replicore_types::limits::{QUERY_REPLY_BYTES_MAX, REPLY_BYTES_MAX};
        match self.mode {
            Mode::Query | Mode::CompositeQuery => QUERY_REPLY_BYTES_MAX,
            _ => REPLY_BYTES_MAX,
        }
    }

    /// The number that the next call's callback gets.
    pub(crate) fn next_callback_id(&self) -> CallbackId {
        CallbackId(self.view.next_callback_id.0 + self.calls.len() as u64)
    }

    /// Books a call that was performed.
    pub(crate) fn push_call(&mut self, call: OutgoingCall) {
        *self.slots_used.entry(call.request.receiver).or_default() += 1;
        self.calls.push(call);
    }

    /// What the message changed. After a failure only its log remains.
    pub(crate) fn take_changes(&mut self, succeeded: bool) -> (Option<WasmResult>, SystemChanges) {
        if !succeeded {
            return (
                None,
                SystemChanges {
                    log: take(&mut self.log),
                    ..SystemChanges::default()
                },
            );
        }
        if let Some(call) = self.call.take() {
            self.cycles_taken -= call.cycles;
        }
        let changes = SystemChanges {
            cycles_accepted: self.cycles_accepted + self.cycles_minted,
            balance_taken: self.cycles_taken,
            cycles_burned: self.cycles_burned,
            calls: take(&mut self.calls),
            certified_data: self.certified_data.take(),
            global_timer: self.global_timer,
            log: take(&mut self.log),
            cycles_reserved: self.cycles_reserved,
            memory_growth: self.memory_growth,
            accepted_message: self.accepted_message,
            low_wasm_memory: self.low_wasm_memory,
        };
        let answer = match std::mem::replace(&mut self.response, Response::Earlier) {
            Response::Given(answer) => Some(answer),
            Response::Open | Response::Earlier => None,
        };
        (answer, changes)
    }
}

impl CallInPreparation {
    /// What the request's transmission is charged for.
    pub(crate) fn payload_bytes(&self) -> usize {
        self.method_name.len() + self.payload.len()
    }

    /// The callback to register.
    pub(crate) fn callback(&self, deadline: Option<CoarseTime>, prepayments: (Cycles, Cycles)) -> Callback {
        Callback {
            respondent: CanisterId(self.callee),
            cycles_sent: self.cycles,
            prepayment_for_response_execution: prepayments.0,
            prepayment_for_response_transmission: prepayments.1,
            on_reply: self.on_reply,
            on_reject: self.on_reject,
            on_cleanup: self.on_cleanup,
            deadline,
        }
    }
}
