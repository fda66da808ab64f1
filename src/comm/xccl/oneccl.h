/* What we use of oneCCL's C interface (libccl.so.2, 2022.1). Its own header is C++ alone,
   though its functions are C's; these declarations say what that header says, in C. */
#ifndef DK_COMM_XCCL_ONECCL_H
#define DK_COMM_XCCL_ONECCL_H

#include <stddef.h>
#include <stdint.h>

typedef struct onecclComm *onecclComm_t;

typedef struct onecclUniqueId {
    char data[4096];
} onecclUniqueId;

/* Results: 0 is success. */
enum { onecclSuccess = 0 };
enum { ONECCL_SPLIT_NOCOLOR = -1 };

typedef enum onecclDataType_t {
    onecclUint8 = 1,
    onecclInt32 = 2,
    onecclInt64 = 4,
    onecclFloat32 = 7,
    onecclBfloat16 = 9
} onecclDataType_t;

typedef enum onecclRedOp_t { onecclSum = 0, onecclMax = 2 } onecclRedOp_t;

int onecclGetUniqueId(onecclUniqueId *id);
int onecclSetDevice(uint32_t index);
int onecclCommInitRank(onecclComm_t *comm, size_t ranks, onecclUniqueId id, int rank);
int onecclCommSplit(onecclComm_t comm, int color, int key, onecclComm_t *made, void *config);
int onecclCommDestroy(onecclComm_t comm);
const char *onecclGetErrorString(int result);

/* stream: a SYCL queue (sycl::queue *), whose device's memory the buffers are; NULL: host
   memory, and the call returns when it is done. */
int onecclAllReduce(void *src, void *dst, size_t count, onecclDataType_t type,
                    onecclRedOp_t reduction, onecclComm_t comm, void *stream);
int onecclReduceScatter(const void *src, void *dst, size_t count_each, onecclDataType_t type,
                        onecclRedOp_t reduction, onecclComm_t comm, void *stream);
int onecclAllGather(const void *src, void *dst, size_t count_each, onecclDataType_t type,
                    onecclComm_t comm, void *stream);
int onecclAllToAll(const void *src, void *dst, size_t count_each, onecclDataType_t type,
                   onecclComm_t comm, void *stream);
int onecclBroadcast(const void *src, void *dst, size_t count, onecclDataType_t type, int root,
                    onecclComm_t comm, void *stream);
int onecclSend(const void *src, size_t count, onecclDataType_t type, int to, onecclComm_t comm,
               void *stream);
int onecclRecv(void *dst, size_t count, onecclDataType_t type, int from, onecclComm_t comm,
               void *stream);
int onecclGroupStart(void);
int onecclGroupEnd(void);

#endif
